// The probe of guest-sdk/conformance/PROBE.md: everything that the SDK offers.
import { Context, Level, OldInstance, Reader, register, reject, rejectBytes, Result, StateMachine, ok, okBytes, textOf, utf8, Writer } from "../../raft_fsm";
export { raft_fsm_abi_v1, apply, query, classify, check, state_version, restores, snapshot, restore, adopt } from "../../raft_fsm";

const MOST: u32 = 16777216;
const COMMANDS = ["echo", "reject", "trap", "index", "time", "random", "emit", "emit-reject", "log", "set", "fill", "actor"];

/** The input, cut at its first space. */
class Line {
  readonly word: Uint8Array;
  readonly rest: Uint8Array;
  readonly hasRest: bool;

  constructor(input: Uint8Array) {
    const space = input.indexOf(0x20);
    this.word = space >= 0 ? input.subarray(0, space) : input;
    this.rest = space >= 0 ? input.subarray(space + 1) : new Uint8Array(0);
    this.hasRest = space >= 0;
  }

  get name(): string {
    const name = textOf(this.word);
    return name !== null ? name : "";
  }
}

/** A number from 0 to MOST, or -1. */
function numberOf(line: Line): i32 {
  const digits = line.rest;
  if (digits.length == 0 || digits.length > 8) return -1;
  let number: u32 = 0;
  for (let i = 0; i < digits.length; i++) {
    const digit: u32 = <u32>digits[i] - 0x30;
    if (digit > 9) return -1;
    number = number * 10 + digit;
  }
  return number <= MOST ? <i32>number : -1;
}

function hexOf(bytes: Uint8Array): string {
  let hex = "";
  for (let i = 0; i < bytes.length; i++) hex += (<u32>bytes[i]).toString(16).padStart(2, "0");
  return hex;
}

function levelOf(name: string): i32 {
  if (name == "error") return Level.Error;
  if (name == "warn") return Level.Warn;
  if (name == "info") return Level.Info;
  return name == "debug" ? Level.Debug : 0;
}

function unknown(line: Line): Result {
  const prefix = utf8("unknown: ");
  const reason = new Uint8Array(prefix.length + line.word.length);
  reason.set(prefix);
  reason.set(line.word, prefix.length);
  return rejectBytes(reason);
}

class Probe extends StateMachine {
  private state: Uint8Array = new Uint8Array(0);

  apply(ctx: Context, command: Uint8Array): Result {
    const line = new Line(command);
    const name = line.name;
    if (name == "emit" || name == "emit-reject") return this.emit(ctx, name, line);
    if (name == "log") {
      const inner = new Line(line.rest);
      const level = levelOf(inner.name);
      const text = textOf(inner.rest);
      if (level == 0 || !inner.hasRest || text === null) return reject("log needs a level and a text");
      ctx.log(level, text);
      return ok();
    }
    if (name == "set") {
      this.state = line.rest.slice();
      return ok(this.state.length.toString());
    }
    if (name == "fill") {
      const count = numberOf(line);
      if (count < 0) return reject("fill needs a number from 0 to 16777216");
      const state = new Uint8Array(count);
      for (let i = 0; i < count; i++) unchecked((state[i] = <u8>(i % 251)));
      this.state = state;
      return ok(count.toString());
    }
    return this.either(ctx, name, line);
  }

  query(ctx: Context, question: Uint8Array): Result {
    const line = new Line(question);
    const name = line.name;
    if (name == "get") return okBytes(this.state);
    if (name == "length") return ok(this.state.length.toString());
    if (name == "checksum") {
      let hash: u32 = 2166136261;
      for (let i = 0; i < this.state.length; i++) hash = (hash ^ <u32>unchecked(this.state[i])) * 16777619;
      return ok(hash.toString());
    }
    return this.either(ctx, name, line);
  }

  classify(ctx: Context, command: Uint8Array): string {
    const name = new Line(command).name;
    return COMMANDS.includes(name) ? name : "";
  }

  check(ctx: Context): Result {
    return textOf(this.state) == "broken" ? reject("the state is broken") : ok();
  }

  stateVersion(): string {
    return "probe/1";
  }

  restores(version: string): Result {
    return version == this.stateVersion() ? ok() : reject("not a format of the probe: " + version);
  }

  snapshot(ctx: Context, out: Writer): void {
    out.rawText("PRB1");
    out.sized(this.state);
  }

  restore(ctx: Context, input: Reader): Result {
    if (input.magic("PRB1")) this.state = input.sized(MOST);
    return ok();
  }

  /** Keeps what there is of the old instance: see PROBE.md. */
  adopt(ctx: Context, old: OldInstance): Result {
    const state = new Uint8Array(32 + 8 + 16 + 2 * 17);
    state.set(old.module);
    store<u64>(state.dataStart + 32, old.size);
    state.set(old.raw(0, 16), 40);
    for (let number = 0; number < 2; number++) {
      const at = state.dataStart + 56 + 17 * number;
      const global = old.global(number);
      store<u8>(at, global !== null ? <u8>global.type : 255);
      if (global !== null) {
        store<u64>(at + 1, global.low);
        store<u64>(at + 9, global.high);
      }
    }
    this.state = state;
    return ok();
  }

  private emit(ctx: Context, name: string, line: Line): Result {
    const inner = new Line(line.rest);
    if (!inner.hasRest) return reject("an event needs a topic and a text");
    ctx.emitBytes(inner.name, inner.rest);
    return name == "emit" ? ok() : reject("no");
  }

  private either(ctx: Context, name: string, line: Line): Result {
    if (name == "echo") return okBytes(line.rest);
    if (name == "reject") return rejectBytes(line.rest);
    if (name == "trap") assert(false, "asked to trap");
    if (name == "index") return ok(ctx.index.toString());
    if (name == "actor") return ok(ctx.actor);
    if (name == "time") return ok(ctx.timeMs.toString());
    if (name == "random") {
      const count = numberOf(line);
      if (count < 0 || count > 1024) return reject("random needs a number from 0 to 1024");
      return ok(hexOf(ctx.random(count)));
    }
    return unknown(line);
  }
}

register(new Probe());
