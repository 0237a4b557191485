//! The locks, sorted by name, and how leases end. It knows nothing of the texts of commands.

const std = @import("std");
const raft_fsm = @import("raft_fsm");
const text = @import("text.zig");
const Allocator = std.mem.Allocator;
const Context = raft_fsm.Context;
const Error = raft_fsm.Error;

pub const max_locks = 10_000;
pub const max_waiters = 64;

fn List(comptime T: type) type {
    return if (@hasDecl(std, "ArrayListUnmanaged")) std.ArrayListUnmanaged(T) else std.ArrayList(T);
}

pub const Waiter = struct { owner: []u8, ttl_ms: u64, deadline_ms: u64 };

pub const Lock = struct {
    name: []u8,
    owner: []u8,
    token: u64,
    expires_ms: u64,
    /// First come, first served. Some may be past their deadline.
    waiters: List(Waiter) = .empty,

    pub fn held(self: *const Lock, now: u64) bool {
        return now < self.expires_ms;
    }

    /// Who has the lock once what is past is put in order.
    pub fn holder(self: *const Lock, now: u64) ?[]const u8 {
        if (self.held(now)) return self.owner;
        for (self.waiters.items) |waiter| if (now < waiter.deadline_ms) return waiter.owner;
        return null;
    }

    /// How many still wait once what is past is put in order.
    pub fn waiting(self: *const Lock, now: u64) usize {
        var count: usize = 0;
        for (self.waiters.items) |waiter| count += @intFromBool(now < waiter.deadline_ms);
        return if (self.held(now)) count else count -| 1;
    }

    pub fn waiterOf(self: *const Lock, owner: []const u8) ?usize {
        for (self.waiters.items, 0..) |waiter, i| if (std.mem.eql(u8, waiter.owner, owner)) return i;
        return null;
    }

    fn deinit(self: *Lock, allocator: Allocator) void {
        for (self.waiters.items) |waiter| allocator.free(waiter.owner);
        self.waiters.deinit(allocator);
        allocator.free(self.owner);
        allocator.free(self.name);
        allocator.destroy(self);
    }
};

pub const Table = struct {
    /// By name, in the order of bytes.
    locks: List(*Lock) = .empty,
    /// Every token given so far is at most this.
    last_token: u64 = 0,
    grants: u64 = 0,
    expiries: u64 = 0,

    pub fn deinit(self: *Table, allocator: Allocator) void {
        for (self.locks.items) |lock| lock.deinit(allocator);
        self.locks.deinit(allocator);
    }

    /// Where the name is, or would be.
    pub fn position(self: *const Table, name: []const u8) usize {
        var low: usize = 0;
        var high: usize = self.locks.items.len;
        while (low < high) {
            const middle = low + (high - low) / 2;
            if (std.mem.lessThan(u8, self.locks.items[middle].name, name)) low = middle + 1 else high = middle;
        }
        return low;
    }

    pub fn find(self: *const Table, name: []const u8) ?*Lock {
        const at = self.position(name);
        if (at == self.locks.items.len or !std.mem.eql(u8, self.locks.items[at].name, name)) return null;
        return self.locks.items[at];
    }

    /// A lock that nobody had.
    pub fn create(self: *Table, ctx: *Context, name: []const u8, owner: []const u8, ttl_ms: u64) Error!*Lock {
        const lock = try ctx.allocator.create(Lock);
        lock.* = .{
            .name = try ctx.allocator.dupe(u8, name),
            .owner = try ctx.allocator.dupe(u8, owner),
            .token = 0,
            .expires_ms = 0,
        };
        try self.locks.insert(ctx.allocator, self.position(name), lock);
        try self.granted(ctx, lock, ttl_ms);
        return lock;
    }

    /// Ends a lease that is past and the waits that are, and gives the lock to who is next. The lock is gone
    /// if nobody wants it: null.
    pub fn settle(self: *Table, ctx: *Context, lock: *Lock) Error!?*Lock {
        const now = ctx.timeMs();
        var kept: usize = 0;
        for (lock.waiters.items) |waiter| {
            if (now < waiter.deadline_ms) {
                lock.waiters.items[kept] = waiter;
                kept += 1;
            } else ctx.allocator.free(waiter.owner);
        }
        lock.waiters.shrinkRetainingCapacity(kept);
        if (lock.held(now)) return lock;
        self.expiries += 1;
        ctx.emit("expired", try ctx.print("{s} {s} {d}", .{ lock.name, lock.owner, lock.token }));
        return self.pass(ctx, lock);
    }

    /// Gives the lock to the first who waits. The waiters must be in order.
    pub fn pass(self: *Table, ctx: *Context, lock: *Lock) Error!?*Lock {
        if (lock.waiters.items.len == 0) {
            _ = self.locks.orderedRemove(self.position(lock.name));
            lock.deinit(ctx.allocator);
            return null;
        }
        const next = lock.waiters.orderedRemove(0);
        ctx.allocator.free(lock.owner);
        lock.owner = next.owner;
        try self.granted(ctx, lock, next.ttl_ms);
        return lock;
    }

    fn granted(self: *Table, ctx: *Context, lock: *Lock, ttl_ms: u64) Error!void {
        // The index, but one command may grant more than once.
        self.last_token = @max(ctx.index(), self.last_token + 1);
        self.grants += 1;
        lock.token = self.last_token;
        lock.expires_ms = ctx.timeMs() + ttl_ms;
        ctx.emit("granted", try ctx.print("{s} {s} {d} {d}", .{ lock.name, lock.owner, lock.token, lock.expires_ms }));
    }

    pub fn snapshot(self: *const Table, out: *raft_fsm.Writer) void {
        out.bytes("LCK1");
        for ([_]u64{ self.last_token, self.grants, self.expiries }) |number| out.int(u64, number);
        out.int(u32, @intCast(self.locks.items.len));
        for (self.locks.items) |lock| {
            out.sized(lock.name);
            out.sized(lock.owner);
            out.int(u64, lock.token);
            out.int(u64, lock.expires_ms);
            out.int(u32, @intCast(lock.waiters.items.len));
            for (lock.waiters.items) |waiter| {
                out.sized(waiter.owner);
                out.int(u64, waiter.ttl_ms);
                out.int(u64, waiter.deadline_ms);
            }
        }
    }

    pub fn restore(ctx: *Context, in: *raft_fsm.Reader) Error!Table {
        var self: Table = .{};
        errdefer self.deinit(ctx.allocator);
        var magic: [4]u8 = undefined;
        try in.bytes(&magic);
        if (!std.mem.eql(u8, &magic, "LCK1")) return ctx.rejectWith("not a snapshot of the lock service");
        self.last_token = try in.int(u64);
        self.grants = try in.int(u64);
        self.expiries = try in.int(u64);
        const count = try in.int(u32);
        if (count > max_locks) return ctx.rejectWith("the snapshot has too many locks");
        for (0..count) |_| {
            const lock = try restoreLock(ctx, in, self.last_token);
            errdefer lock.deinit(ctx.allocator);
            const before = self.locks.items;
            if (before.len > 0 and !std.mem.lessThan(u8, before[before.len - 1].name, lock.name))
                return ctx.rejectWith("the snapshot's locks are not in order");
            try self.locks.append(ctx.allocator, lock);
        }
        try in.end();
        return self;
    }

    fn restoreLock(ctx: *Context, in: *raft_fsm.Reader, last_token: u64) Error!*Lock {
        const lock = try ctx.allocator.create(Lock);
        lock.* = .{ .name = &.{}, .owner = &.{}, .token = 0, .expires_ms = 0 };
        errdefer lock.deinit(ctx.allocator);
        lock.name = try restoreName(ctx, in);
        lock.owner = try restoreName(ctx, in);
        lock.token = try in.int(u64);
        if (lock.token > last_token) return ctx.rejectWith("the snapshot has a token from the future");
        lock.expires_ms = try in.int(u64);
        const count = try in.int(u32);
        if (count > max_waiters) return ctx.rejectWith("the snapshot has too many waiters");
        for (0..count) |_| {
            const owner = try restoreName(ctx, in);
            errdefer ctx.allocator.free(owner);
            const ttl_ms = try in.int(u64);
            if (ttl_ms == 0 or ttl_ms > text.max_ttl_ms) return ctx.rejectWith("the snapshot has a lease out of bounds");
            const deadline_ms = try in.int(u64);
            try lock.waiters.append(ctx.allocator, .{ .owner = owner, .ttl_ms = ttl_ms, .deadline_ms = deadline_ms });
        }
        return lock;
    }

    fn restoreName(ctx: *Context, in: *raft_fsm.Reader) Error![]u8 {
        const name = try in.sized(ctx.allocator, text.max_name);
        errdefer ctx.allocator.free(name);
        if (!text.isName(name)) return ctx.rejectWith("the snapshot has a name that is none");
        return name;
    }
};
