//! A lock service: leases on the log's clock, fencing tokens, and queues. README.md lists commands and queries.

const std = @import("std");
const raft_fsm = @import("raft_fsm");
const table = @import("table.zig");
const text = @import("text.zig");
const Context = raft_fsm.Context;
const Error = raft_fsm.Error;
const Lock = table.Lock;

pub const panic = raft_fsm.panic;

comptime {
    raft_fsm.exportMachine(Service);
}

const page = 100;
/// Each may emit two events, and a command has 1,024.
const max_settled = 500;

pub const Service = struct {
    table: table.Table = .{},

    pub fn init(_: std.mem.Allocator) Service {
        return .{};
    }

    pub fn deinit(self: *Service, allocator: std.mem.Allocator) void {
        self.table.deinit(allocator);
    }

    pub fn apply(self: *Service, ctx: *Context, command: []const u8) Error![]const u8 {
        var words: text.Words = .{ .ctx = ctx, .rest = command };
        const verb = words.next().?;
        if (is(verb, "acquire")) return self.acquire(ctx, &words);
        if (is(verb, "renew")) return self.renew(ctx, &words);
        if (is(verb, "release")) return self.release(ctx, &words);
        if (is(verb, "cancel")) return self.cancel(ctx, &words);
        if (is(verb, "break")) return self.forceBreak(ctx, &words);
        if (is(verb, "tick")) return self.tick(ctx, &words);
        return ctx.rejectWith("a command is acquire, renew, release, cancel, break or tick");
    }

    pub fn query(self: *const Service, ctx: *Context, question: []const u8) Error![]const u8 {
        var words: text.Words = .{ .ctx = ctx, .rest = question };
        const verb = words.next().?;
        if (is(verb, "get")) return self.get(ctx, &words);
        if (is(verb, "validate")) return self.validate(ctx, &words);
        if (is(verb, "waiters")) return self.waiters(ctx, &words);
        if (is(verb, "list")) return self.list(ctx, &words);
        if (is(verb, "stats")) return self.stats(ctx, &words);
        return ctx.rejectWith("a query is get, validate, waiters, list or stats");
    }

    pub fn snapshot(self: *const Service, _: *Context, out: *raft_fsm.Writer) Error!void {
        self.table.snapshot(out);
    }

    pub fn restore(ctx: *Context, in: *raft_fsm.Reader) Error!Service {
        return .{ .table = try table.Table.restore(ctx, in) };
    }

    fn acquire(self: *Service, ctx: *Context, words: *text.Words) Error![]const u8 {
        const name = try words.name("name");
        const owner = try words.name("owner");
        const ttl_ms = try words.number("lease", text.max_ttl_ms);
        const wait_ms: ?u64 = if (words.rest == null) null else try words.number("wait", text.max_wait_ms);
        try words.end();
        const now = ctx.timeMs();

        if (self.table.find(name)) |lock| if (lock.holder(now)) |holder| {
            if (is(holder, owner)) {
                const settled = (try self.table.settle(ctx, lock)).?;
                settled.expires_ms = now + ttl_ms;
                return held(ctx, settled);
            }
            if (wait_ms == null) return ctx.reject("{s} is held by {s}", .{ name, holder });
            const again = if (lock.waiterOf(owner)) |i| now < lock.waiters.items[i].deadline_ms else false;
            if (!again and lock.waiting(now) >= table.max_waiters)
                return ctx.reject("{s} has {d} waiters already", .{ name, table.max_waiters });
            return wait(ctx, (try self.table.settle(ctx, lock)).?, owner, ttl_ms, now + wait_ms.?);
        };
        const existing = self.table.find(name);
        if (existing == null and self.table.locks.items.len >= table.max_locks)
            return ctx.reject("there are {d} locks already; tick collects those that expired", .{table.max_locks});
        if (existing) |lock| _ = try self.table.settle(ctx, lock);
        return held(ctx, try self.table.create(ctx, name, owner, ttl_ms));
    }

    fn wait(ctx: *Context, lock: *Lock, owner: []const u8, ttl_ms: u64, deadline_ms: u64) Error![]const u8 {
        const place = lock.waiterOf(owner) orelse place: {
            const copy = try ctx.allocator.dupe(u8, owner);
            try lock.waiters.append(ctx.allocator, .{ .owner = copy, .ttl_ms = 0, .deadline_ms = 0 });
            break :place lock.waiters.items.len - 1;
        };
        lock.waiters.items[place].ttl_ms = ttl_ms;
        lock.waiters.items[place].deadline_ms = deadline_ms;
        return ctx.print("{{\"state\":\"waiting\",\"place\":{d},\"deadline_ms\":{d}}}", .{ place + 1, deadline_ms });
    }

    fn renew(self: *Service, ctx: *Context, words: *text.Words) Error![]const u8 {
        const lock = try self.mine(ctx, words);
        const ttl_ms = try words.number("lease", text.max_ttl_ms);
        try words.end();
        const settled = (try self.table.settle(ctx, lock)).?;
        settled.expires_ms = ctx.timeMs() + ttl_ms;
        return held(ctx, settled);
    }

    fn release(self: *Service, ctx: *Context, words: *text.Words) Error![]const u8 {
        const lock = try self.mine(ctx, words);
        try words.end();
        const settled = (try self.table.settle(ctx, lock)).?;
        ctx.emit("released", try ctx.print("{s} {s} {d}", .{ settled.name, settled.owner, settled.token }));
        return after(ctx, try self.table.pass(ctx, settled));
    }

    /// The lock that the words name, if owner and token have it now.
    fn mine(self: *Service, ctx: *Context, words: *text.Words) Error!*Lock {
        const name = try words.name("name");
        const owner = try words.name("owner");
        const token = try words.number("token", std.math.maxInt(u63));
        const lock = self.table.find(name) orelse return ctx.reject("{s} is not held", .{name});
        if (!lock.held(ctx.timeMs()) or lock.token != token or !is(lock.owner, owner))
            return ctx.reject("{s} is not held by {s} with token {d}", .{ name, owner, token });
        return lock;
    }

    fn cancel(self: *Service, ctx: *Context, words: *text.Words) Error![]const u8 {
        const name = try words.name("name");
        const owner = try words.name("owner");
        try words.end();
        const lock = self.table.find(name) orelse return ctx.reject("{s} is not held", .{name});
        const place = lock.waiterOf(owner) orelse return ctx.reject("{s} does not wait for {s}", .{ owner, name });
        ctx.allocator.free(lock.waiters.orderedRemove(place).owner);
        return after(ctx, try self.table.settle(ctx, lock));
    }

    fn forceBreak(self: *Service, ctx: *Context, words: *text.Words) Error![]const u8 {
        const name = try words.name("name");
        const reason = try words.reason();
        const lock = self.table.find(name) orelse return ctx.reject("{s} is not held", .{name});
        if (lock.holder(ctx.timeMs()) == null) return ctx.reject("{s} is not held", .{name});
        const settled = (try self.table.settle(ctx, lock)).?;
        ctx.emit("broken", try ctx.print("{s} {s} {d} {s}", .{ name, settled.owner, settled.token, reason }));
        return after(ctx, try self.table.pass(ctx, settled));
    }

    fn tick(self: *Service, ctx: *Context, words: *text.Words) Error![]const u8 {
        try words.end();
        const now = ctx.timeMs();
        var settled: usize = 0;
        var at: usize = 0;
        while (at < self.table.locks.items.len and settled < max_settled) {
            const lock = self.table.locks.items[at];
            const expired = !lock.held(now);
            settled += @intFromBool(expired);
            if (!expired or try self.table.settle(ctx, lock) != null) at += 1;
        }
        return ctx.print("{{\"settled\":{d},\"more\":{}}}", .{ settled, settled == max_settled });
    }

    fn get(self: *const Service, ctx: *Context, words: *text.Words) Error![]const u8 {
        const name = try words.name("name");
        try words.end();
        const lock = self.table.find(name) orelse return ctx.print("{{\"name\":\"{s}\",\"state\":\"free\"}}", .{name});
        return describe(ctx, lock);
    }

    fn validate(self: *const Service, ctx: *Context, words: *text.Words) Error![]const u8 {
        const name = try words.name("name");
        const token = try words.number("token", std.math.maxInt(u63));
        try words.end();
        const lock = self.table.find(name) orelse return "{\"valid\":false}";
        if (!lock.held(ctx.timeMs()) or lock.token != token) return "{\"valid\":false}";
        return ctx.print("{{\"valid\":true,\"owner\":\"{s}\",\"expires_ms\":{d}}}", .{ lock.owner, lock.expires_ms });
    }

    fn waiters(self: *const Service, ctx: *Context, words: *text.Words) Error![]const u8 {
        const name = try words.name("name");
        try words.end();
        var answer: []const u8 = "";
        if (self.table.find(name)) |lock| for (lock.waiters.items) |waiter| {
            if (waiter.deadline_ms <= ctx.timeMs()) continue;
            const comma: []const u8 = if (answer.len > 0) "," else "";
            answer = try ctx.print("{s}{s}{{\"owner\":\"{s}\",\"lease_ms\":{d},\"deadline_ms\":{d}}}", .{ answer, comma, waiter.owner, waiter.ttl_ms, waiter.deadline_ms });
        };
        return ctx.print("{{\"waiters\":[{s}]}}", .{answer});
    }

    fn list(self: *const Service, ctx: *Context, words: *text.Words) Error![]const u8 {
        const first = words.next() orelse "*";
        const prefix = if (is(first, "*")) "" else first;
        const after_name = if (words.rest == null) null else try words.name("name");
        try words.end();
        var at = self.table.position(if (after_name) |name| if (std.mem.lessThan(u8, prefix, name)) name else prefix else prefix);
        const all = self.table.locks.items;
        if (after_name) |name| if (at < all.len and is(all[at].name, name)) {
            at += 1;
        };
        var answer: []const u8 = "";
        var count: usize = 0;
        while (at < all.len and count < page and std.mem.startsWith(u8, all[at].name, prefix)) : (at += 1) {
            const comma: []const u8 = if (count > 0) "," else "";
            answer = try ctx.print("{s}{s}{s}", .{ answer, comma, try describe(ctx, all[at]) });
            count += 1;
        }
        const more = at < all.len and std.mem.startsWith(u8, all[at].name, prefix);
        return ctx.print("{{\"locks\":[{s}],\"more\":{}}}", .{ answer, more });
    }

    fn stats(self: *const Service, ctx: *Context, words: *text.Words) Error![]const u8 {
        try words.end();
        var held_now: usize = 0;
        var waiting: usize = 0;
        for (self.table.locks.items) |lock| {
            held_now += @intFromBool(lock.held(ctx.timeMs()));
            waiting += lock.waiters.items.len;
        }
        return ctx.print("{{\"locks\":{d},\"held\":{d},\"waiters\":{d},\"grants\":{d},\"expiries\":{d},\"last_token\":{d}}}", .{ self.table.locks.items.len, held_now, waiting, self.table.grants, self.table.expiries, self.table.last_token });
    }
};

fn held(ctx: *Context, lock: *const Lock) Error![]const u8 {
    return ctx.print("{{\"state\":\"held\",\"token\":{d},\"expires_ms\":{d}}}", .{ lock.token, lock.expires_ms });
}

/// Who has the lock after somebody let go.
fn after(ctx: *Context, lock: ?*const Lock) Error![]const u8 {
    const now = lock orelse return "{\"state\":\"free\"}";
    return describe(ctx, now);
}

fn describe(ctx: *Context, lock: *const Lock) Error![]const u8 {
    const state: []const u8 = if (lock.held(ctx.timeMs())) "held" else "expired";
    return ctx.print("{{\"name\":\"{s}\",\"state\":\"{s}\",\"owner\":\"{s}\",\"token\":{d},\"expires_ms\":{d},\"waiters\":{d}}}", .{ lock.name, state, lock.owner, lock.token, lock.expires_ms, lock.waiters.items.len });
}

fn is(word: []const u8, other: []const u8) bool {
    return std.mem.eql(u8, word, other);
}

test {
    _ = @import("tests.zig");
}
