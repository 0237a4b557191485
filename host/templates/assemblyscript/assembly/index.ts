// {{name}}: a counter. Commands are decimal numbers, which are added; an empty query gives the sum.
//
// Three rules make it safe to replicate:
//   1. Only the log decides: no clock, no chance and no input but what the SDK hands you.
//   2. Rejected means unchanged: check first, change after.
//   3. Snapshots are versioned: tomorrow's release must read what today's wrote.
import { Context, ok, Reader, register, reject, Result, StateMachine, Writer } from "./raft_fsm";
export { raft_fsm_abi_v1, apply, query, snapshot, restore, init } from "./raft_fsm";

const MAGIC = "CNT1"; // The last character is the version of the format.
const NOT_A_NUMBER = "a command is a decimal number of at most 18 digits, such as 5 or -3";

class Counter extends StateMachine {
  private sum: i64 = 0;

  apply(ctx: Context, command: Uint8Array): Result {
    const negative = command.length > 0 && command[0] == 0x2d; // "-"
    const start = negative ? 1 : 0;
    const digits = command.length - start;
    if (digits < 1 || digits > 18) return reject(NOT_A_NUMBER);

    let number: i64 = 0;
    for (let i = start; i < command.length; i++) {
      const digit = <i64>command[i] - 0x30; // "0"
      if (digit < 0 || digit > 9) return reject(NOT_A_NUMBER);
      number = number * 10 + digit;
    }
    if (negative) number = -number;

    const sum = this.sum + number; // It wraps around, which the next line sees.
    if (number > 0 ? sum < this.sum : sum > this.sum) return reject("the counter would overflow");
    this.sum = sum;
    return ok(sum.toString());
  }

  query(ctx: Context, question: Uint8Array): Result {
    if (question.length > 0) return reject("a query of the counter is empty");
    return ok(this.sum.toString());
  }

  snapshot(ctx: Context, out: Writer): void {
    out.rawText(MAGIC);
    out.i64(this.sum);
  }

  restore(ctx: Context, input: Reader): Result {
    if (!input.magic(MAGIC)) return reject("not a snapshot of the counter");
    this.sum = input.i64();
    return ok(); // The SDK rejects a snapshot that is too short or too long.
  }
}

register(new Counter());
