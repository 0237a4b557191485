//! The probe of guest-sdk/conformance/PROBE.md.

const std = @import("std");
const raft_fsm = @import("raft_fsm");
const Context = raft_fsm.Context;
const Error = raft_fsm.Error;

pub const panic = raft_fsm.panic;

comptime {
    raft_fsm.exportMachine(Probe);
}

const max_fill = 16_777_216;
const commands = [_][]const u8{ "echo", "reject", "trap", "index", "time", "random", "emit", "emit-reject", "log", "set", "fill", "actor" };

pub const Probe = struct {
    state: []u8,

    pub fn init(_: std.mem.Allocator) Probe {
        return .{ .state = &.{} };
    }

    pub fn deinit(self: *Probe, allocator: std.mem.Allocator) void {
        allocator.free(self.state);
    }

    pub fn apply(self: *Probe, ctx: *Context, command: []const u8) Error![]const u8 {
        const word, const text = split(command);
        if (is(word, "emit") or is(word, "emit-reject")) {
            const topic, const payload = split(text orelse return ctx.rejectWith("emit needs a topic"));
            ctx.emit(topic, payload orelse return ctx.rejectWith("emit needs a text"));
            if (is(word, "emit-reject")) return ctx.rejectWith("no");
            return "";
        }
        if (is(word, "log")) {
            const name, const line = split(text orelse return ctx.rejectWith("log needs a level"));
            const level = levelOf(name) orelse return ctx.reject("there is no level {s}", .{name});
            ctx.log(level, "{s}", .{line orelse return ctx.rejectWith("log needs a text")});
            return "";
        }
        if (is(word, "set")) {
            try self.replace(ctx, try ctx.allocator.dupe(u8, text orelse ""));
            return ctx.print("{d}", .{self.state.len});
        }
        if (is(word, "fill")) {
            const state = try ctx.allocator.alloc(u8, try number(ctx, text));
            for (state, 0..) |*byte, i| byte.* = @intCast(i % 251);
            try self.replace(ctx, state);
            return ctx.print("{d}", .{state.len});
        }
        return common(ctx, word, text);
    }

    pub fn query(self: *const Probe, ctx: *Context, question: []const u8) Error![]const u8 {
        const word, const text = split(question);
        if (is(word, "get")) return self.state;
        if (is(word, "length")) return ctx.print("{d}", .{self.state.len});
        if (is(word, "checksum")) return ctx.print("{d}", .{std.hash.Fnv1a_32.hash(self.state)});
        return common(ctx, word, text);
    }

    pub fn classify(_: *const Probe, _: *Context, command: []const u8) Error![]const u8 {
        const word, _ = split(command);
        for (commands) |known| if (is(word, known)) return known;
        return "";
    }

    pub fn check(self: *const Probe, ctx: *Context) Error!void {
        if (is(self.state, "broken")) return ctx.rejectWith("the state is broken");
    }

    pub const state_version = "probe/1";

    pub fn restores(ctx: *Context, version: []const u8) Error!void {
        if (!is(version, state_version)) return ctx.reject("not a format of the probe: {s}", .{version});
    }

    /// Keeps what there is of the old instance: see PROBE.md.
    pub fn adopt(ctx: *Context, old: *raft_fsm.OldInstance) Error!Probe {
        const globals = 2;
        const state = try ctx.allocator.alloc(u8, 32 + 8 + 16 + globals * 17);
        errdefer ctx.allocator.free(state);
        @memcpy(state[0..32], &old.module);
        std.mem.writeInt(u64, state[32..40], old.size, .little);
        try old.bytes(0, state[40..56]);
        for (0..globals) |which| {
            const at = state[56 + 17 * which ..][0..17];
            const global = old.global(@intCast(which));
            at[0] = if (global) |there| @intCast(@intFromEnum(there.type)) else 255;
            std.mem.writeInt(u128, at[1..17], if (global) |there| there.bits else 0, .little);
        }
        return .{ .state = state };
    }

    pub fn snapshot(self: *const Probe, _: *Context, out: *raft_fsm.Writer) Error!void {
        out.bytes("PRB1");
        out.sized(self.state);
    }

    pub fn restore(ctx: *Context, in: *raft_fsm.Reader) Error!Probe {
        var magic: [4]u8 = undefined;
        try in.bytes(&magic);
        if (!is(&magic, "PRB1")) return ctx.rejectWith("not a snapshot of the probe");
        const state = try in.sized(ctx.allocator, std.math.maxInt(u32));
        errdefer ctx.allocator.free(state);
        try in.end();
        return .{ .state = state };
    }

    fn replace(self: *Probe, ctx: *Context, state: []u8) Error!void {
        ctx.allocator.free(self.state);
        self.state = state;
    }
};

fn common(ctx: *Context, word: []const u8, text: ?[]const u8) Error![]const u8 {
    if (is(word, "echo")) return text orelse "";
    if (is(word, "reject")) return ctx.rejectWith(text orelse "");
    if (is(word, "trap")) @panic("the probe was asked to trap");
    if (is(word, "index")) return ctx.print("{d}", .{ctx.index()});
    if (is(word, "actor")) return ctx.actor();
    if (is(word, "time")) return ctx.print("{d}", .{ctx.timeMs()});
    if (is(word, "random")) {
        const count = try number(ctx, text);
        if (count > 1024) return ctx.rejectWith("at most 1024 random bytes");
        const hex = try ctx.arena.alloc(u8, 2 * count);
        const raw = hex[count..];
        ctx.randomBytes(raw);
        // Front to back: two digits are written no earlier than their byte is read.
        for (0..count) |i| {
            const byte = raw[i];
            hex[2 * i] = "0123456789abcdef"[byte >> 4];
            hex[2 * i + 1] = "0123456789abcdef"[byte & 15];
        }
        return hex;
    }
    return ctx.reject("unknown: {s}", .{word});
}

fn number(ctx: *Context, text: ?[]const u8) Error!usize {
    const digits = text orelse return ctx.rejectWith("a number is missing");
    var value: usize = 0;
    for (digits) |digit| {
        if (digit < '0' or digit > '9') return ctx.rejectWith("not a decimal number");
        value = value * 10 + (digit - '0');
        if (value > max_fill) return ctx.reject("a number is at most {d}", .{max_fill});
    }
    if (digits.len == 0) return ctx.rejectWith("a number is missing");
    return value;
}

fn levelOf(name: []const u8) ?raft_fsm.Level {
    if (is(name, "error")) return .err;
    if (is(name, "warn")) return .warn;
    if (is(name, "info")) return .info;
    if (is(name, "debug")) return .debug;
    return null;
}

fn split(input: []const u8) struct { []const u8, ?[]const u8 } {
    const space = std.mem.indexOfScalar(u8, input, ' ') orelse return .{ input, null };
    return .{ input[0..space], input[space + 1 ..] };
}

fn is(word: []const u8, other: []const u8) bool {
    return std.mem.eql(u8, word, other);
}

test "the memory of another module is adopted" {
    var node = try raft_fsm.Runner(Probe).init(std.testing.allocator);
    defer node.deinit();
    try node.expectApply("set mine", "4");
    const module = [_]u8{7} ** 32;
    try std.testing.expectError(error.Rejected, node.adopt(module, "too short", &.{}));
    try std.testing.expectEqualStrings("the old memory ends before 16 bytes at 0x0", node.output());
    try node.expectQuery("get", "mine");
    const globals = [_]raft_fsm.Global{.{ .type = .i64, .bits = 0x109 }};
    try node.adopt(module, "a memory of 20 bytes", &globals);
    const size = "\x14" ++ "\x00" ** 7;
    const first = "\x01\x09\x01" ++ "\x00" ** 14;
    try node.expectQuery("get", "\x07" ** 32 ++ size ++ "a memory of 20 b" ++ first ++ "\xff" ++ "\x00" ** 16);
    try node.renew();
    try node.expectApply("set new", "3");
}

test "the state survives a renewal" {
    var node = try raft_fsm.Runner(Probe).init(std.testing.allocator);
    defer node.deinit();
    try node.expectApply("fill 100000", "100000");
    try node.renew();
    try node.expectQuery("length", "100000");
    try node.expectReject("dance now", "unknown: dance");
    try std.testing.expectEqualStrings("set", try node.classify("set this"));
    try std.testing.expectEqualStrings("", try node.classify("dance now"));
    try node.expectApply("actor", "");
    node.setActor("alice@example.org");
    try node.expectApply("actor", "alice@example.org");
    try node.expectQuery("actor", "");
    try node.expectApply("emit a b", "");
    try std.testing.expectEqualStrings("a b\n", node.events());
    try std.testing.expectEqualStrings("probe/1", try node.stateVersion());
    try node.restores("probe/1");
    try std.testing.expectError(error.Rejected, node.restores("kv/1"));
    try std.testing.expectEqualStrings("not a format of the probe: kv/1", node.output());
    try node.check();
    try node.expectApply("set broken", "6");
    try std.testing.expectError(error.Rejected, node.check());
    try node.expectQuery("get", "broken");
    try std.testing.expectError(error.Rejected, node.restore("PRB1\xff\xff\xff\xff"));
}
