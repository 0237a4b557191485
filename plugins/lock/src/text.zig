//! Words and numbers of commands, and what is allowed in them.

const std = @import("std");
const raft_fsm = @import("raft_fsm");
const Context = raft_fsm.Context;
const Error = raft_fsm.Error;

pub const max_name = 128;
pub const max_reason = 200;
pub const max_ttl_ms = 86_400_000;
pub const max_wait_ms = 3_600_000;

/// The words of a command, taken one after the other. Words have one space between them.
pub const Words = struct {
    ctx: *Context,
    rest: ?[]const u8,

    pub fn next(self: *Words) ?[]const u8 {
        const text = self.rest orelse return null;
        const space = std.mem.indexOfScalar(u8, text, ' ') orelse {
            self.rest = null;
            return text;
        };
        self.rest = text[space + 1 ..];
        return text[0..space];
    }

    /// A name of a lock or an owner.
    pub fn name(self: *Words, comptime what: []const u8) Error![]const u8 {
        const word = self.next() orelse return self.ctx.rejectWith("a " ++ what ++ " is missing");
        if (!isName(word)) return self.ctx.rejectWith("a " ++ what ++ " has 1 to 128 of the characters A-Z a-z 0-9 . _ : / @ -");
        return word;
    }

    pub fn number(self: *Words, comptime what: []const u8, max: u64) Error!u64 {
        const word = self.next() orelse return self.ctx.rejectWith("a " ++ what ++ " is missing");
        const value = parse(word) orelse 0;
        if (value == 0 or value > max) return self.ctx.reject("a " ++ what ++ " is a number from 1 to {d}", .{max});
        return value;
    }

    /// The rest of the line, for people.
    pub fn reason(self: *Words) Error![]const u8 {
        const text = self.rest orelse return self.ctx.rejectWith("a reason is missing");
        if (text.len == 0 or text.len > max_reason or !std.unicode.utf8ValidateSlice(text))
            return self.ctx.reject("a reason is a text of 1 to {d} bytes", .{max_reason});
        for (text) |byte| if (byte < ' ' or byte == 127) return self.ctx.rejectWith("a reason is one line of text");
        return text;
    }

    pub fn end(self: *Words) Error!void {
        if (self.rest != null) return self.ctx.rejectWith("there are too many words");
    }
};

pub fn isName(word: []const u8) bool {
    if (word.len == 0 or word.len > max_name) return false;
    for (word) |byte| {
        if (!std.ascii.isAlphanumeric(byte) and std.mem.indexOfScalar(u8, "._:/@-", byte) == null) return false;
    }
    return true;
}

fn parse(word: []const u8) ?u64 {
    if (word.len == 0 or word.len > 19) return null;
    var value: u64 = 0;
    for (word) |digit| {
        if (digit < '0' or digit > '9') return null;
        value = value * 10 + (digit - '0');
    }
    return value;
}
