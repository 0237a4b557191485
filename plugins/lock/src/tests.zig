const std = @import("std");
const raft_fsm = @import("raft_fsm");
const Service = @import("main.zig").Service;

const Node = raft_fsm.Runner(Service);

test "a lease ends on the log's clock, and the next owner gets a greater token" {
    var node = try Node.init(std.testing.allocator);
    defer node.deinit();
    try node.expectApply("acquire db alice 1000", "{\"state\":\"held\",\"token\":2,\"expires_ms\":1700000001000}");
    try node.expectReject("acquire db bob 1000", "db is held by alice");
    node.advance(1000);
    try node.expectQuery("validate db 2", "{\"valid\":false}");
    try node.expectReject("renew db alice 2 1000", "db is not held by alice with token 2");
    try node.expectApply("acquire db bob 500", "{\"state\":\"held\",\"token\":5,\"expires_ms\":1700000001500}");
    try std.testing.expectEqualStrings("expired db alice 2\ngranted db bob 5 1700000001500\n", node.events());
    try node.renew();
}

test "waiters are served in order, but not past their deadline" {
    var node = try Node.init(std.testing.allocator);
    defer node.deinit();
    _ = try node.apply("acquire db alice 1000");
    try node.expectApply("acquire db bob 1000 100", "{\"state\":\"waiting\",\"place\":1,\"deadline_ms\":1700000000100}");
    try node.expectApply("acquire db carol 1000 5000", "{\"state\":\"waiting\",\"place\":2,\"deadline_ms\":1700000005000}");
    node.advance(200);
    try node.renew();
    _ = try node.apply("release db alice 2");
    try std.testing.expectEqualStrings("released db alice 2\ngranted db carol 5 1700000001200\n", node.events());
    try node.expectReject("cancel db bob", "bob does not wait for db");
    _ = try node.apply("break db on fire");
    try std.testing.expectEqualStrings("broken db carol 5 on fire\n", node.events());
    try node.expectQuery("get db", "{\"name\":\"db\",\"state\":\"free\"}");
}

test "one command that grants twice gives two tokens" {
    var node = try Node.init(std.testing.allocator);
    defer node.deinit();
    _ = try node.apply("acquire db alice 10");
    _ = try node.apply("acquire db bob 10 5000");
    _ = try node.apply("acquire db carol 10 5000");
    node.advance(10);
    _ = try node.apply("break db stuck");
    try std.testing.expectEqualStrings(
        "expired db alice 2\ngranted db bob 5 1700000000020\nbroken db bob 5 stuck\ngranted db carol 6 1700000000020\n",
        node.events(),
    );
}

test "bounds hold" {
    var node = try Node.init(std.testing.allocator);
    defer node.deinit();
    _ = try node.apply("acquire db alice 10");
    for (0..64) |i| {
        var buffer: [64]u8 = undefined;
        _ = try node.apply(try std.fmt.bufPrint(&buffer, "acquire db w{d} 10 1000", .{i}));
    }
    try node.expectReject("acquire db late 10 1000", "db has 64 waiters already");
    try std.testing.expectError(error.Rejected, node.apply("acquire d\"b alice 10"));
    try std.testing.expectError(error.Rejected, node.apply("acquire db alice 0"));
    try std.testing.expectError(error.Rejected, node.apply("acquire db alice 86400001"));
    try node.renew();
}

test "a snapshot cut anywhere is refused and leaks nothing" {
    var node = try Node.init(std.testing.allocator);
    defer node.deinit();
    _ = try node.apply("acquire a alice 10");
    _ = try node.apply("acquire a bob 10 100");
    const whole = try node.snapshot();
    defer std.testing.allocator.free(whole);
    for (0..whole.len) |length| try std.testing.expectError(error.Rejected, node.restore(whole[0..length]));
}
