//! A counter: commands are decimal numbers, which are added; an empty query gives the sum.

const std = @import("std");
const raft_fsm = @import("raft_fsm");

/// A panic's message reaches the log of the node.
pub const panic = raft_fsm.panic;

comptime {
    raft_fsm.exportMachine(Counter);
}

pub const Counter = struct {
    sum: i64,

    pub fn init(_: std.mem.Allocator) Counter {
        return .{ .sum = 0 };
    }

    /// Only the log decides: no clock, no randomness and no order but those of `ctx` and the command.
    pub fn apply(self: *Counter, ctx: *raft_fsm.Context, command: []const u8) raft_fsm.Error![]const u8 {
        const number = parse(command) orelse
            return ctx.rejectWith("a command is a decimal number of at most 18 digits, such as 5 or -3");
        // Rejected means unchanged: check first, change after.
        self.sum = std.math.add(i64, self.sum, number) catch return ctx.rejectWith("the counter would overflow");
        return ctx.print("{d}", .{self.sum});
    }

    pub fn query(self: *const Counter, ctx: *raft_fsm.Context, question: []const u8) raft_fsm.Error![]const u8 {
        if (question.len > 0) return ctx.rejectWith("a query of the counter is empty");
        return ctx.print("{d}", .{self.sum});
    }

    /// Snapshots are versioned: the 1 of the magic. A later release must read what this one wrote.
    pub fn snapshot(self: *const Counter, _: *raft_fsm.Context, out: *raft_fsm.Writer) raft_fsm.Error!void {
        out.bytes("CNT1");
        out.int(i64, self.sum);
    }

    pub fn restore(ctx: *raft_fsm.Context, in: *raft_fsm.Reader) raft_fsm.Error!Counter {
        var magic: [4]u8 = undefined;
        try in.bytes(&magic);
        if (!std.mem.eql(u8, &magic, "CNT1")) return ctx.rejectWith("not a snapshot of the counter");
        const sum = try in.int(i64);
        try in.end();
        return .{ .sum = sum };
    }
};

fn parse(text: []const u8) ?i64 {
    const negative = text.len > 0 and text[0] == '-';
    const digits = if (negative) text[1..] else text;
    if (digits.len == 0 or digits.len > 18) return null;
    var value: i64 = 0;
    for (digits) |digit| {
        if (digit < '0' or digit > '9') return null;
        value = value * 10 + (digit - '0');
    }
    return if (negative) -value else value;
}

test "numbers add up" {
    var node = try raft_fsm.Runner(Counter).init(std.testing.allocator);
    defer node.deinit();
    try node.expectApply("5", "5");
    try node.expectApply("-3", "2");
    try node.expectQuery("", "2");
    try node.expectReject("five", "a command is a decimal number of at most 18 digits, such as 5 or -3");
}

test "the sum survives an upgrade, and a foreign snapshot is refused" {
    var node = try raft_fsm.Runner(Counter).init(std.testing.allocator);
    defer node.deinit();
    try node.expectApply("999999999999999999", "999999999999999999");
    try node.renew();
    try node.expectQuery("", "999999999999999999");
    try std.testing.expectError(error.Rejected, node.restore("CNT1short"));
    try std.testing.expectError(error.Rejected, node.restore("CNT2\x00\x00\x00\x00\x00\x00\x00\x00"));
}
