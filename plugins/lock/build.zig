//! `zig build` writes zig-out/bin/lock.wasm; `zig build test` runs the tests natively.

const std = @import("std");

const name = "lock";
const sdk = "../../guest-sdk/zig/raft_fsm.zig";

pub fn build(b: *std.Build) void {
    // Checked in every build: an overflow or a bad index must trap, on all replicas alike.
    const module = machine(b, b.resolveTargetQuery(.{ .cpu_arch = .wasm32, .os_tag = .freestanding }), .ReleaseSafe);
    module.strip = true;
    module.error_tracing = false;
    const wasm = b.addExecutable(.{ .name = name, .root_module = module });
    wasm.entry = .disabled;
    wasm.rdynamic = true;
    wasm.stack_size = 256 * 1024;
    b.installArtifact(wasm);

    const tests = b.addTest(.{ .root_module = machine(b, b.graph.host, .Debug) });
    b.step("test", "Run the tests").dependOn(&b.addRunArtifact(tests).step);
}

fn machine(b: *std.Build, target: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode) *std.Build.Module {
    const module = b.createModule(.{ .root_source_file = b.path("src/main.zig"), .target = target, .optimize = optimize });
    module.addAnonymousImport("raft_fsm", .{ .root_source_file = b.path(sdk), .target = target, .optimize = optimize });
    return module;
}
