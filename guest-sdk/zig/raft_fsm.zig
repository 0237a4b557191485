//! State machines for raft-host in Zig: the whole SDK in one file. README.md shows how to begin.
//!
//! A machine is a type with these declarations:
//!
//!     pub fn init(allocator: std.mem.Allocator) Machine                     the empty state
//!     pub fn apply(self: *Machine, ctx: *Context, command: []const u8) Error![]const u8
//!     pub fn query(self: *const Machine, ctx: *Context, question: []const u8) Error![]const u8
//!     pub fn snapshot(self: *const Machine, ctx: *Context, out: *Writer) Error!void
//!     pub fn restore(ctx: *Context, in: *Reader) Error!Machine
//!     pub fn found(self: *Machine, ctx: *Context) Error!void                optional: once per cluster
//!     pub fn classify(self: *const Machine, ctx: *Context, command: []const u8) Error![]const u8     optional
//!     pub fn check(self: *const Machine, ctx: *Context) Error!void                 optional
//!     pub const state_version = "kv/2";                                     optional, with:
//!     pub fn restores(ctx: *Context, version: []const u8) Error!void        optional
//!     pub fn adopt(ctx: *Context, old: *OldInstance) Error!Machine          optional
//!     pub fn deinit(self: *Machine, allocator: std.mem.Allocator) void      optional: for native tests
//!
//! `classify` names the class of a command, so that rights may be given for some of them only: 1 to 64 letters, digits and any
//! of `.`, `_`, `-`; or nothing for one that has none, which only those may give who may give all. What it changes is undone.
//!
//! `check` rejects if the state breaks a rule of its own, and says which. `state_version` names the format of the snapshots, and
//! `restores` rejects those that `restore` does not take; without it, all but the own one. Both are for upgrades.
//!
//! `adopt` builds the state from the exact memory of another module's instance, whose snapshot can never succeed.
//!
//! `error.Rejected` says no, with the message of `Context.reject`. Every other error traps, and the host undoes
//! the call.

const std = @import("std");
const builtin = @import("builtin");
const Allocator = std.mem.Allocator;

const is_guest = builtin.target.cpu.arch.isWasm();

/// What a machine's functions may fail with.
pub const Error = error{ Rejected, OutOfMemory };

pub const Level = enum(u32) { err = 1, warn = 2, info = 3, debug = 4 };

/// Where a call stands, and what it may do. It is good for one call.
pub const Context = struct {
    /// For what the state keeps: the caller frees it.
    allocator: Allocator,
    /// For what only this call needs, the answer too. Freed when the call is over.
    arena: Allocator,
    message: []const u8 = "",

    /// The index of the entry; in queries and snapshots, of the last entry that was applied.
    pub fn index(_: *const Context) u64 {
        return host.index();
    }

    /// Which of its entry's commands this one is, from 0 on: no other has the same index and ordinal.
    pub fn ordinal(_: *const Context) u32 {
        return host.ordinal();
    }

    /// The log's clock, in milliseconds since the Unix epoch. It never goes back, and stands still in a call.
    pub fn timeMs(_: *const Context) u64 {
        return host.time_ms();
    }

    /// Who gave the command, as the cluster knows him: the command has no say in it. Empty if nobody is known, and in calls
    /// that are about no command. It lives as long as the call.
    pub fn actor(ctx: *const Context) Error![]const u8 {
        const name = try ctx.arena.alloc(u8, 64); // None is longer.
        return name[0..host.actor(name.ptr, name.len)];
    }

    /// The same bytes on every replica. Not for secrets.
    pub fn randomBytes(_: *const Context, bytes: []u8) void {
        host.random(bytes.ptr, bytes.len);
    }

    /// The standard library's interface to the same bytes.
    pub fn random(ctx: *Context) std.Random {
        return std.Random.init(ctx, fillRandom);
    }

    fn fillRandom(_: *Context, bytes: []u8) void {
        host.random(bytes.ptr, bytes.len);
    }

    /// Publishes an event, which counts if the command is accepted.
    pub fn emit(_: *const Context, topic: []const u8, payload: []const u8) void {
        host.emit(topic.ptr, topic.len, payload.ptr, payload.len);
    }

    /// Writes a line to the log of this node.
    pub fn log(ctx: *const Context, level: Level, comptime format: []const u8, args: anytype) void {
        const line = std.fmt.allocPrint(ctx.arena, format, args) catch return;
        host.log(@intFromEnum(level), line.ptr, line.len);
    }

    /// A text that lives as long as the call: for answers.
    pub fn print(ctx: *const Context, comptime format: []const u8, args: anytype) Error![]const u8 {
        return std.fmt.allocPrint(ctx.arena, format, args);
    }

    /// Refuses the call: `return ctx.reject("no account {s}", .{name})`. Change nothing before.
    pub fn reject(ctx: *Context, comptime format: []const u8, args: anytype) Error {
        return ctx.rejectWith(try std.fmt.allocPrint(ctx.arena, format, args));
    }

    /// Refuses the call with bytes that are at hand.
    pub fn rejectWith(ctx: *Context, message: []const u8) Error {
        ctx.message = message;
        return error.Rejected;
    }
};

/// Writes a snapshot in pieces. Numbers are little-endian.
pub const Writer = struct {
    buffer: [4096]u8 = undefined,
    used: usize = 0,

    pub fn bytes(self: *Writer, data: []const u8) void {
        if (data.len > self.buffer.len - self.used) self.flush();
        if (data.len > self.buffer.len) return host.write(data.ptr, data.len);
        @memcpy(self.buffer[self.used..][0..data.len], data);
        self.used += data.len;
    }

    /// An integer of whole bytes: `out.int(u32, 7)`.
    pub fn int(self: *Writer, comptime T: type, value: T) void {
        var raw: [@divExact(@typeInfo(T).int.bits, 8)]u8 = undefined;
        std.mem.writeInt(T, &raw, value, .little);
        self.bytes(&raw);
    }

    /// The length as four bytes, then the bytes.
    pub fn sized(self: *Writer, data: []const u8) void {
        self.int(u32, @intCast(data.len));
        self.bytes(data);
    }

    /// The SDK calls it at the end.
    pub fn flush(self: *Writer) void {
        if (self.used > 0) host.write(&self.buffer, self.used);
        self.used = 0;
    }
};

/// Reads a snapshot in pieces, and rejects what is too short. No length is believed before it is checked.
pub const Reader = struct {
    ctx: *Context,
    /// What the snapshot still has, buffered bytes included.
    remaining: usize,
    buffer: [4096]u8 = undefined,
    start: usize = 0,
    end_: usize = 0,

    /// Fills all of `into`.
    pub fn bytes(self: *Reader, into: []u8) Error!void {
        if (into.len > self.remaining) return self.ctx.rejectWith("the snapshot is too short");
        var done: usize = 0;
        while (done < into.len) {
            if (self.start == self.end_) {
                self.end_ = host.read(&self.buffer, self.buffer.len);
                self.start = 0;
                if (self.end_ == 0) return self.ctx.rejectWith("the snapshot is too short");
            }
            const count = @min(into.len - done, self.end_ - self.start);
            @memcpy(into[done..][0..count], self.buffer[self.start..][0..count]);
            self.start += count;
            done += count;
        }
        self.remaining -= into.len;
    }

    pub fn int(self: *Reader, comptime T: type) Error!T {
        var raw: [@divExact(@typeInfo(T).int.bits, 8)]u8 = undefined;
        try self.bytes(&raw);
        return std.mem.readInt(T, &raw, .little);
    }

    /// So many bytes in memory of the caller's; checked before it is allocated.
    pub fn take(self: *Reader, allocator: Allocator, count: usize) Error![]u8 {
        if (count > self.remaining) return self.ctx.rejectWith("the snapshot is too short");
        const data = try allocator.alloc(u8, count);
        errdefer allocator.free(data);
        try self.bytes(data);
        return data;
    }

    /// What `Writer.sized` wrote, if it is not longer than `max`.
    pub fn sized(self: *Reader, allocator: Allocator, max: usize) Error![]u8 {
        const count = try self.int(u32);
        if (count > max) return self.ctx.reject("the snapshot has a field of {d} bytes; at most {d} are allowed", .{ count, max });
        return self.take(allocator, count);
    }

    /// Rejects what follows the last field.
    pub fn end(self: *Reader) Error!void {
        if (self.remaining > 0) return self.ctx.reject("the snapshot has {d} bytes too many", .{self.remaining});
    }
};

/// A mutable global: its bits, a little-endian number, and their type.
pub const Global = struct {
    type: enum(i32) { i32 = 0, i64 = 1, f32 = 2, f64 = 3, v128 = 4 },
    bits: u128,
};

/// The memory of the instance that `adopt` takes over. Numbers are little-endian. What lies outside is rejected.
pub const OldInstance = struct {
    ctx: *Context,
    /// The SHA-256 of its module: reject all but those whose layout you know.
    module: [32]u8,
    /// Size of its memory in bytes.
    size: u64,

    /// Fills all of `into` from an address on.
    pub fn bytes(self: *OldInstance, at: u64, into: []u8) Error!void {
        try self.need(at, into.len);
        host.old_memory(at, into.ptr, into.len);
    }

    /// An integer of whole bytes: `old.int(u32, at)` for a pointer or a length.
    pub fn int(self: *OldInstance, comptime T: type, at: u64) Error!T {
        var raw: [@divExact(@typeInfo(T).int.bits, 8)]u8 = undefined;
        try self.bytes(at, &raw);
        return std.mem.readInt(T, &raw, .little);
    }

    /// So many bytes in memory of the caller's; checked before it is allocated.
    pub fn take(self: *OldInstance, allocator: Allocator, at: u64, count: usize) Error![]u8 {
        try self.need(at, count);
        const data = try allocator.alloc(u8, count);
        host.old_memory(at, data.ptr, data.len);
        return data;
    }

    /// The `number`-th mutable global, from 0 on, in the order of the module's indices; null if there are not so many.
    pub fn global(_: *const OldInstance, number: u32) ?Global {
        var raw: [16]u8 = undefined;
        const kind = host.old_global(number, &raw);
        if (kind < 0) return null;
        return .{ .type = @enumFromInt(kind), .bits = std.mem.readInt(u128, &raw, .little) };
    }

    fn need(self: *OldInstance, at: u64, count: u64) Error!void {
        if (at <= self.size and count <= self.size - at) return;
        return self.ctx.reject("the old memory ends before {d} bytes at 0x{x}", .{ count, at });
    }
};

/// Makes `Machine` the state machine of this module: `comptime { raft_fsm.exportMachine(Machine); }`.
/// In a native build, such as a test, it does nothing.
pub fn exportMachine(comptime Machine: type) void {
    if (!is_guest) return;
    const exports = Exports(Machine);
    @export(&exports.marker, .{ .name = "raft_fsm_abi_v1" });
    @export(&exports.apply, .{ .name = "apply" });
    @export(&exports.query, .{ .name = "query" });
    @export(&exports.snapshot, .{ .name = "snapshot" });
    @export(&exports.restore, .{ .name = "restore" });
    if (@hasDecl(Machine, "classify")) @export(&exports.classify, .{ .name = "classify" });
    if (@hasDecl(Machine, "check")) @export(&exports.check, .{ .name = "check" });
    if (@hasDecl(Machine, "state_version")) @export(&exports.stateVersion, .{ .name = "state_version" });
    if (@hasDecl(Machine, "state_version")) @export(&exports.restores, .{ .name = "restores" });
    if (@hasDecl(Machine, "adopt")) @export(&exports.adopt, .{ .name = "adopt" });
    if (@hasDecl(Machine, "found")) @export(&exports.found, .{ .name = "init" });
}

fn Exports(comptime Machine: type) type {
    return struct {
        var machine: ?Machine = null;

        fn marker() callconv(.c) void {}

        fn apply(len: u32) callconv(.c) i32 {
            return call(Machine, .apply, &machine, std.heap.wasm_allocator, len);
        }
        fn query(len: u32) callconv(.c) i32 {
            return call(Machine, .query, &machine, std.heap.wasm_allocator, len);
        }
        fn snapshot() callconv(.c) i32 {
            return call(Machine, .snapshot, &machine, std.heap.wasm_allocator, 0);
        }
        fn restore(len: u32) callconv(.c) i32 {
            return call(Machine, .restore, &machine, std.heap.wasm_allocator, len);
        }
        fn classify(len: u32) callconv(.c) i32 {
            return call(Machine, .classify, &machine, std.heap.wasm_allocator, len);
        }
        fn check() callconv(.c) i32 {
            return call(Machine, .check, &machine, std.heap.wasm_allocator, 0);
        }
        fn stateVersion() callconv(.c) i32 {
            return call(Machine, .state_version, &machine, std.heap.wasm_allocator, 0);
        }
        fn restores(len: u32) callconv(.c) i32 {
            return call(Machine, .restores, &machine, std.heap.wasm_allocator, len);
        }
        fn adopt(len: u32) callconv(.c) i32 {
            return call(Machine, .adopt, &machine, std.heap.wasm_allocator, len);
        }
        fn found() callconv(.c) i32 {
            return call(Machine, .found, &machine, std.heap.wasm_allocator, 0);
        }
    };
}

const Call = enum { apply, query, snapshot, restore, found, classify, check, state_version, restores, adopt };

fn call(comptime Machine: type, comptime kind: Call, slot: *?Machine, allocator: Allocator, len: u32) i32 {
    var arena = std.heap.ArenaAllocator.init(allocator);
    defer arena.deinit();
    var ctx: Context = .{ .allocator = allocator, .arena = arena.allocator() };
    if (kind != .restore and kind != .adopt and slot.* == null) slot.* = Machine.init(allocator);
    dispatch(Machine, kind, slot, &ctx, len) catch |failure| {
        if (failure != error.Rejected) return trapWith(@errorName(failure));
        host.write(ctx.message.ptr, ctx.message.len);
        return 1;
    };
    return 0;
}

fn dispatch(comptime Machine: type, comptime kind: Call, slot: *?Machine, ctx: *Context, len: u32) anyerror!void {
    switch (kind) {
        .apply, .query, .classify => {
            const input = try readInput(ctx, len);
            const answer: []const u8 = switch (kind) {
                .apply => try slot.*.?.apply(ctx, input),
                .query => try slot.*.?.query(ctx, input),
                else => try slot.*.?.classify(ctx, input),
            };
            host.write(answer.ptr, answer.len);
        },
        .snapshot => {
            var out: Writer = .{};
            try slot.*.?.snapshot(ctx, &out);
            out.flush();
        },
        .restore => {
            var in: Reader = .{ .ctx = ctx, .remaining = len };
            replace(Machine, slot, ctx, try Machine.restore(ctx, &in));
        },
        .adopt => {
            var old: OldInstance = .{ .ctx = ctx, .module = @splat(0), .size = host.old_memory_size() };
            const module = try readInput(ctx, len);
            @memcpy(old.module[0..@min(module.len, 32)], module[0..@min(module.len, 32)]);
            replace(Machine, slot, ctx, try Machine.adopt(ctx, &old));
        },
        .found => try slot.*.?.found(ctx),
        .check => try slot.*.?.check(ctx),
        .state_version => host.write(Machine.state_version, Machine.state_version.len),
        .restores => {
            const version = try readInput(ctx, len);
            if (@hasDecl(Machine, "restores")) return Machine.restores(ctx, version);
            if (std.mem.eql(u8, version, Machine.state_version)) return;
            return ctx.reject("it restores {s} only, and not {s}", .{ Machine.state_version, version });
        },
    }
}

fn replace(comptime Machine: type, slot: *?Machine, ctx: *Context, machine: Machine) void {
    if (slot.*) |*old| if (@hasDecl(Machine, "deinit")) old.deinit(ctx.allocator);
    slot.* = machine;
}

fn readInput(ctx: *Context, len: u32) Error![]const u8 {
    const input = try ctx.arena.alloc(u8, len);
    var done: usize = 0;
    while (done < input.len) {
        const count = host.read(input[done..].ptr, input.len - done);
        if (count == 0) break;
        done += count;
    }
    return input[0..done];
}

/// Put `pub const panic = raft_fsm.panic;` in the root file: a panic's message reaches the log before it traps.
pub const panic = std.debug.FullPanic(panicked);

fn panicked(message: []const u8, address: ?usize) noreturn {
    if (!is_guest) std.debug.defaultPanic(message, address);
    trapWith(message);
}

fn trapWith(message: []const u8) noreturn {
    if (!is_guest) std.debug.panic("the machine broke: {s}", .{message});
    host.log(@intFromEnum(Level.err), message.ptr, message.len);
    @trap();
}

const host = if (is_guest) struct {
    extern "raft_fsm_v1" fn read(ptr: [*]u8, cap: usize) usize;
    extern "raft_fsm_v1" fn write(ptr: [*]const u8, len: usize) void;
    extern "raft_fsm_v1" fn index() u64;
    extern "raft_fsm_v1" fn ordinal() u32;
    extern "raft_fsm_v1" fn time_ms() u64;
    extern "raft_fsm_v1" fn actor(ptr: [*]u8, cap: usize) usize;
    extern "raft_fsm_v1" fn random(ptr: [*]u8, len: usize) void;
    extern "raft_fsm_v1" fn emit(topic: [*]const u8, topic_len: usize, ptr: [*]const u8, len: usize) void;
    extern "raft_fsm_v1" fn log(level: u32, ptr: [*]const u8, len: usize) void;
    extern "raft_fsm_v1" fn old_memory_size() u64;
    extern "raft_fsm_v1" fn old_memory(at: u64, ptr: [*]u8, len: usize) void;
    extern "raft_fsm_v1" fn old_global(number: u32, bits: *[16]u8) i32;
} else struct {
    // The runner below stands in for the host. A native call outside of a runner breaks here.
    var current: ?*Tape = null;

    fn read(ptr: [*]u8, cap: usize) usize {
        const tape = current.?;
        const count = @min(cap, tape.input.len);
        @memcpy(ptr[0..count], tape.input[0..count]);
        tape.input = tape.input[count..];
        return count;
    }
    fn write(ptr: [*]const u8, len: usize) void {
        current.?.output.appendSlice(current.?.gpa, ptr[0..len]) catch @panic("out of memory");
    }
    fn index() u64 {
        return current.?.index;
    }
    fn ordinal() u32 {
        return 0; // Every command is an entry of its own here.
    }
    fn time_ms() u64 {
        return current.?.time_ms;
    }
    fn actor(ptr: [*]u8, cap: usize) usize {
        const tape = current.?;
        const name = if (tape.knows_actor) tape.actor else "";
        const count = @min(cap, name.len);
        @memcpy(ptr[0..count], name[0..count]);
        return name.len;
    }
    fn random(ptr: [*]u8, len: usize) void {
        current.?.prng.random().bytes(ptr[0..len]);
    }
    fn emit(topic: [*]const u8, topic_len: usize, ptr: [*]const u8, len: usize) void {
        current.?.record("{s} {s}\n", .{ topic[0..topic_len], ptr[0..len] });
    }
    fn log(_: u32, _: [*]const u8, _: usize) void {}
    fn old_memory_size() u64 {
        return current.?.old_memory.len;
    }
    fn old_memory(at: u64, ptr: [*]u8, len: usize) void {
        @memcpy(ptr[0..len], current.?.old_memory[@intCast(at)..][0..len]);
    }
    fn old_global(number: u32, bits: *[16]u8) i32 {
        const globals = current.?.old_globals;
        if (number >= globals.len) return -1;
        std.mem.writeInt(u128, bits, globals[number].bits, .little);
        return @intFromEnum(globals[number].type);
    }
};

fn List(comptime T: type) type {
    return if (@hasDecl(std, "ArrayListUnmanaged")) std.ArrayListUnmanaged(T) else std.ArrayList(T);
}

/// What a native call sees and leaves.
const Tape = struct {
    gpa: Allocator,
    input: []const u8 = "",
    output: List(u8) = .empty,
    events: List(u8) = .empty,
    index: u64 = 1,
    time_ms: u64 = 1_700_000_000_000,
    actor: []const u8 = "",
    knows_actor: bool = false,
    /// What there is of an old instance during `adopt`.
    old_memory: []const u8 = "",
    old_globals: []const Global = &.{},
    prng: std.Random.DefaultPrng = std.Random.DefaultPrng.init(0),

    fn record(tape: *Tape, comptime format: []const u8, args: anytype) void {
        const line = std.fmt.allocPrint(tape.gpa, format, args) catch @panic("out of memory");
        defer tape.gpa.free(line);
        tape.events.appendSlice(tape.gpa, line) catch @panic("out of memory");
    }
};

/// Runs a machine natively, in tests. It keeps the promises in view: a rejected command or a query that changes the
/// snapshot is `error.ChangedState`. Answers are good until the next call.
pub fn Runner(comptime Machine: type) type {
    return struct {
        const Self = @This();
        gpa: Allocator,
        tape: Tape,
        machine: ?Machine = null,

        /// A new cluster, as the host founds it.
        pub fn init(gpa: Allocator) !Self {
            var self: Self = .{ .gpa = gpa, .tape = .{ .gpa = gpa } };
            errdefer self.deinit();
            self.machine = Machine.init(gpa);
            if (@hasDecl(Machine, "found")) _ = try self.run(.found, "");
            return self;
        }

        pub fn deinit(self: *Self) void {
            if (self.machine) |*machine| if (@hasDecl(Machine, "deinit")) machine.deinit(self.gpa);
            self.tape.output.deinit(self.gpa);
            self.tape.events.deinit(self.gpa);
        }

        /// Lets the log's clock go on.
        pub fn advance(self: *Self, ms: u64) void {
            self.tape.time_ms += ms;
        }

        /// Says who gives the commands from now on; the name must stay. Nobody does with an empty one.
        pub fn setActor(self: *Self, name: []const u8) void {
            self.tape.actor = name;
        }

        /// The class of a command, as if it came next; empty if it has none.
        pub fn classify(self: *Self, command: []const u8) ![]const u8 {
            self.tape.index += 1;
            defer self.tape.index -= 1;
            return self.checked(.classify, command);
        }

        /// `error.Rejected` if the state breaks a rule; `output` tells which.
        pub fn check(self: *Self) !void {
            _ = try self.checked(.check, "");
        }

        /// The name of the format of the snapshots.
        pub fn stateVersion(self: *Self) ![]const u8 {
            return self.run(.state_version, "");
        }

        /// `error.Rejected` if it does not take snapshots of a format; `output` tells why.
        pub fn restores(self: *Self, version: []const u8) !void {
            _ = try self.run(.restores, version);
        }

        /// `error.Rejected` if it is refused; `output` tells why.
        pub fn apply(self: *Self, command: []const u8) ![]const u8 {
            self.tape.index += 1;
            return self.checked(.apply, command);
        }

        pub fn query(self: *Self, question: []const u8) ![]const u8 {
            return self.checked(.query, question);
        }

        /// The last answer or reason.
        pub fn output(self: *const Self) []const u8 {
            return self.tape.output.items;
        }

        /// The events of the last call: a line each, `TOPIC PAYLOAD`.
        pub fn events(self: *const Self) []const u8 {
            return self.tape.events.items;
        }

        /// The state as bytes; the caller frees them.
        pub fn snapshot(self: *Self) ![]u8 {
            return self.gpa.dupe(u8, try self.run(.snapshot, ""));
        }

        pub fn restore(self: *Self, bytes: []const u8) !void {
            _ = try self.run(.restore, bytes);
        }

        /// Has the machine take over the memory and the mutable globals of an instance of the module with this SHA-256.
        /// `error.Rejected` if it refuses; `output` tells why.
        pub fn adopt(self: *Self, module: [32]u8, memory: []const u8, globals: []const Global) !void {
            self.tape.old_memory = memory;
            self.tape.old_globals = globals;
            defer {
                self.tape.old_memory = "";
                self.tape.old_globals = &.{};
            }
            _ = try self.run(.adopt, &module);
        }

        /// Snapshot and restore: what an upgrade does. The snapshot of the new state must be the same.
        pub fn renew(self: *Self) !void {
            const before = try self.snapshot();
            defer self.gpa.free(before);
            try self.restore(before);
            if (!std.mem.eql(u8, before, try self.run(.snapshot, ""))) return error.ChangedState;
        }

        pub fn expectApply(self: *Self, command: []const u8, answer: []const u8) !void {
            try std.testing.expectEqualStrings(answer, try self.apply(command));
        }

        pub fn expectQuery(self: *Self, question: []const u8, answer: []const u8) !void {
            try std.testing.expectEqualStrings(answer, try self.query(question));
        }

        pub fn expectReject(self: *Self, command: []const u8, reason: []const u8) !void {
            try std.testing.expectError(error.Rejected, self.apply(command));
            try std.testing.expectEqualStrings(reason, self.output());
        }

        fn checked(self: *Self, comptime kind: Call, input: []const u8) ![]const u8 {
            const before = try self.snapshot();
            defer self.gpa.free(before);
            const outcome = self.run(kind, input);
            const refused = if (outcome) |_| false else |_| true;
            if (kind == .apply and !refused) return outcome;

            const kept = self.tape.output;
            const events_kept = self.tape.events;
            self.tape.output = .empty;
            self.tape.events = .empty;
            defer {
                self.tape.output.deinit(self.gpa);
                self.tape.events.deinit(self.gpa);
                self.tape.output = kept;
                self.tape.events = events_kept;
            }
            if (!std.mem.eql(u8, before, try self.run(.snapshot, ""))) return error.ChangedState;
            return outcome;
        }

        fn run(self: *Self, comptime kind: Call, input: []const u8) error{Rejected}![]const u8 {
            self.tape.input = input;
            self.tape.knows_actor = kind == .apply or kind == .classify;
            self.tape.output.clearRetainingCapacity();
            self.tape.events.clearRetainingCapacity();
            self.tape.prng = std.Random.DefaultPrng.init(self.tape.index *% 16 +% @intFromEnum(kind));
            host.current = &self.tape;
            defer host.current = null;
            const status = call(Machine, kind, &self.machine, self.gpa, @intCast(input.len));
            if (status == 0) return self.tape.output.items;
            self.tape.events.clearRetainingCapacity();
            return error.Rejected;
        }
    };
}
