// The SDK for state machines in AssemblyScript: one file, nothing imported but raft_fsm_v1.
//
// The entry file of a state machine does two things with it:
//
//     export { raft_fsm_abi_v1, apply, query, snapshot, restore, init } from "./raft_fsm";
//     register(new Counter());
//
// and asc is told `--use abort=assembly/raft_fsm/abort`, so that a failed assertion is logged before it traps.

// @ts-ignore: decorator
@external("raft_fsm_v1", "read") declare function hostRead(ptr: usize, cap: u32): u32;
// @ts-ignore: decorator
@external("raft_fsm_v1", "write") declare function hostWrite(ptr: usize, len: u32): void;
// @ts-ignore: decorator
@external("raft_fsm_v1", "index") declare function hostIndex(): u64;
// @ts-ignore: decorator
@external("raft_fsm_v1", "ordinal") declare function hostOrdinal(): u32;
// @ts-ignore: decorator
@external("raft_fsm_v1", "time_ms") declare function hostTime(): u64;
// @ts-ignore: decorator
@external("raft_fsm_v1", "actor") declare function hostActor(ptr: usize, cap: u32): u32;
// @ts-ignore: decorator
@external("raft_fsm_v1", "random") declare function hostRandom(ptr: usize, len: u32): void;
// @ts-ignore: decorator
@external("raft_fsm_v1", "emit") declare function hostEmit(topic: usize, topicLen: u32, ptr: usize, len: u32): void;
// @ts-ignore: decorator
@external("raft_fsm_v1", "log") declare function hostLog(level: i32, ptr: usize, len: u32): void;
// @ts-ignore: decorator
@external("raft_fsm_v1", "old_memory_size") declare function hostOldMemorySize(): u64;
// @ts-ignore: decorator
@external("raft_fsm_v1", "old_memory") declare function hostOldMemory(at: u64, ptr: usize, len: u32): void;
// @ts-ignore: decorator
@external("raft_fsm_v1", "old_global") declare function hostOldGlobal(number: u32, ptr: usize): i32;

/** Your state machine. Only the log decides: no other input exists, and equal inputs must give equal states. */
export abstract class StateMachine {
  /** Runs one command. Check first, change after: who answers `reject` has changed nothing. */
  abstract apply(ctx: Context, command: Uint8Array): Result;
  /** Answers a question. What it changes is undone. */
  abstract query(ctx: Context, question: Uint8Array): Result;
  /** Writes the whole state, beginning with a magic and a version, in an order that depends on the contents only. */
  abstract snapshot(ctx: Context, out: Writer): void;
  /**
   * Reads what this or an older release wrote, into a fresh instance. A snapshot that is too short, or longer
   * than what was read, is rejected even if this answers `ok`.
   */
  abstract restore(ctx: Context, input: Reader): Result;
  /**
   * Names the class of a command, so that rights may be given for some of them only: 1 to 64 letters (a to z), digits and
   * any of `.`, `_`, `-`; or nothing for one that has none, which only those may give who may give all. What it changes is
   * undone. Export `classify` beside the others, or nobody asks.
   */
  classify(ctx: Context, command: Uint8Array): string {
    return "";
  }
  /**
   * Says whether the state keeps its own rules; `reject` tells which is broken. The host asks when an upgrade is tried on the
   * real state. What it changes is undone. Export `check` beside the others, or nobody asks.
   */
  check(ctx: Context): Result {
    return ok();
  }
  /**
   * The name of the format of the snapshots, such as `kv/2`: 1 to 64 letters (a to z), digits and any of `.`, `_`, `-`, `/`.
   * Export `state_version` and `restores` beside the others, or nobody asks.
   */
  stateVersion(): string {
    return "";
  }
  /** Says whether `restore` takes snapshots of a format; `reject` tells why not. At first, the own one only. */
  restores(version: string): Result {
    const own = this.stateVersion();
    return version == own ? ok() : reject("it restores " + own + " only, and not " + version);
  }
  /**
   * Builds the state, in a fresh instance, from the exact memory of another module's instance, whose `snapshot` can never succeed.
   * Reject every module but those whose layout you know. What lies outside of that memory is rejected even if this answers
   * `ok`. Export `adopt` beside the others, or nobody asks.
   */
  adopt(ctx: Context, old: OldInstance): Result {
    return reject("it does not take over the memory of other modules");
  }
  /** Runs once in the life of a cluster, before the first command. */
  init(ctx: Context): Result {
    return ok();
  }
}

/** How a call ended: the answer, or the reason why not. Made by `ok`, `okBytes` and `reject`. */
export class Result {
  constructor(
    readonly rejected: bool,
    readonly text: string,
    readonly bytes: Uint8Array | null,
  ) {}
}

/** Done; the text is the answer. */
export function ok(text: string = ""): Result {
  return new Result(false, text, null);
}

/** Done; these bytes are the answer. They are handed to the host where they lie. */
export function okBytes(bytes: Uint8Array): Result {
  return new Result(false, "", bytes);
}

/** Refused, for this reason, and nothing has changed. */
export function reject(reason: string): Result {
  return new Result(true, reason, null);
}

/** Refused, with a reason that need not be text. */
export function rejectBytes(reason: Uint8Array): Result {
  return new Result(true, "", reason);
}

/** Levels of `Context.log`. */
export enum Level {
  Error = 1,
  Warn = 2,
  Info = 3,
  Debug = 4,
}

/** What a call may know of the world. */
export class Context {
  /** The index of the log entry; outside `apply`, of the last one applied. */
  get index(): u64 {
    return hostIndex();
  }

  /** Which of its entry's commands this one is, from 0 on: no other has the same index and ordinal. */
  get ordinal(): u32 {
    return hostOrdinal();
  }

  /** The log's clock, in milliseconds since 1970. It never goes back, and stands still during a call. */
  get timeMs(): u64 {
    return hostTime();
  }

  /**
   * Who gave the command, as the cluster knows him: the command has no say in it. Empty if nobody is known, and in calls
   * that are about no command.
   */
  get actor(): string {
    return String.UTF8.decodeUnsafe(buffer, min(hostActor(buffer, 64), 64)); // None is longer.
  }

  /** Random bytes, the same on every replica. Whoever reads the log can compute them: not for secrets. */
  random(count: i32): Uint8Array {
    const bytes = new Uint8Array(count);
    hostRandom(bytes.dataStart, count);
    return bytes;
  }

  /** Publishes an event. It counts only if `apply` or `init` ends with `ok`. */
  emit(topic: string, payload: string): void {
    this.emitBytes(topic, utf8(payload));
  }

  emitBytes(topic: string, payload: Uint8Array): void {
    const name = utf8(topic);
    hostEmit(name.dataStart, name.length, payload.dataStart, payload.length);
  }

  /** A line for the log of this node. It never changes an outcome. */
  log(level: Level, message: string): void {
    const line = utf8(message);
    hostLog(level, line.dataStart, line.length);
  }
}

const BUFFER_BYTES: u32 = 16384;
const buffer = memory.data(16384, 8);

/** Writes a snapshot through a buffer of 16 KiB. Numbers are little-endian. */
export class Writer {
  private used: u32 = 0;

  u8(value: u8): void {
    store<u8>(this.reserve(1), value);
  }

  u32(value: u32): void {
    store<u32>(this.reserve(4), value);
  }

  u64(value: u64): void {
    store<u64>(this.reserve(8), value);
  }

  i64(value: i64): void {
    store<i64>(this.reserve(8), value);
  }

  /** The bytes alone: for a magic, or what needs no length. */
  raw(bytes: Uint8Array): void {
    if (<u32>bytes.length > BUFFER_BYTES - this.used) this.flush();
    if (<u32>bytes.length > BUFFER_BYTES) {
      hostWrite(bytes.dataStart, bytes.length);
    } else {
      memory.copy(this.reserve(bytes.length), bytes.dataStart, bytes.length);
    }
  }

  /** A magic, or other text without a length. */
  rawText(text: string): void {
    this.raw(utf8(text));
  }

  /** The length as `u32`, then the bytes. */
  sized(bytes: Uint8Array): void {
    this.u32(bytes.length);
    this.raw(bytes);
  }

  /** The length in bytes as `u32`, then the text as UTF-8. */
  text(text: string): void {
    this.sized(utf8(text));
  }

  /** Hands everything to the host. The SDK calls it after `snapshot`. */
  flush(): void {
    hostWrite(buffer, this.used);
    this.used = 0;
  }

  private reserve(bytes: u32): usize {
    if (BUFFER_BYTES - this.used < bytes) this.flush();
    const at = buffer + this.used;
    this.used += bytes;
    return at;
  }
}

/**
 * Reads a snapshot through a buffer of 16 KiB. AssemblyScript has no exceptions, so a failure sticks: from then on every
 * number is 0, every text is empty, `good` is false, and the restore will be rejected with the reason of the first failure.
 * A loop over a count that the snapshot tells must stop when `good` is false.
 */
export class Reader {
  private at: u32 = 0;
  private filled: u32 = 0;
  private left: u32;
  private failure: string = "";

  constructor(length: u32) {
    this.left = length;
  }

  /** Whether everything so far could be read. */
  get good(): bool {
    return this.failure.length == 0;
  }

  /** Bytes that have not been read yet. */
  get remaining(): u32 {
    return this.left;
  }

  /** Makes the restore be rejected, for this reason unless there is one already. */
  fail(reason: string): void {
    if (this.good) this.failure = reason.length > 0 ? reason : "the snapshot is wrong";
  }

  u8(): u8 {
    const at = this.take(1);
    return at ? load<u8>(at) : 0;
  }

  u32(): u32 {
    const at = this.take(4);
    return at ? load<u32>(at) : 0;
  }

  u64(): u64 {
    const at = this.take(8);
    return at ? load<u64>(at) : 0;
  }

  i64(): i64 {
    return <i64>this.u64();
  }

  /** Exactly so many bytes. Nothing is allocated before the snapshot is known to have them. */
  raw(count: u32): Uint8Array {
    if (!this.has(count)) return new Uint8Array(0);
    const bytes = new Uint8Array(count);
    let done: u32 = 0;
    while (done < count) {
      if (this.at == this.filled && !this.fill()) return new Uint8Array(0);
      const piece = min(count - done, this.filled - this.at);
      memory.copy(bytes.dataStart + done, buffer + this.at, piece);
      this.at += piece;
      done += piece;
    }
    this.left -= count;
    return bytes;
  }

  /** What `Writer.sized` wrote, if it has at most so many bytes. */
  sized(most: u32 = u32.MAX_VALUE): Uint8Array {
    const count = this.u32();
    if (count > most) {
      this.fail("the snapshot has a field of " + count.toString() + " bytes; at most " + most.toString() + " are allowed");
    }
    return this.raw(this.good ? count : 0);
  }

  /** What `Writer.text` wrote, if it has at most so many bytes. */
  text(most: u32 = u32.MAX_VALUE): string {
    const text = textOf(this.sized(most));
    if (text === null) {
      this.fail("the snapshot has a text that is not UTF-8");
      return "";
    }
    return text;
  }

  /** Whether the next bytes are exactly this text: for a magic. */
  magic(expected: string): bool {
    const length = <u32>String.UTF8.byteLength(expected);
    if (this.left < length) {
      this.fail("the snapshot does not begin with " + expected);
      return false;
    }
    const found = textOf(this.raw(length));
    if (found === null || found != expected) this.fail("the snapshot does not begin with " + expected);
    return this.good;
  }

  /** Why the restore must be rejected, or null. */
  problem(): string | null {
    if (!this.good) return this.failure;
    if (this.left > 0) return "the snapshot has " + this.left.toString() + " trailing bytes";
    return null;
  }

  private has(count: u32): bool {
    if (!this.good) return false;
    if (count > this.left) {
      this.fail("the snapshot is too short");
      return false;
    }
    return true;
  }

  private take(count: u32): usize {
    if (!this.has(count)) return 0;
    while (this.filled - this.at < count) {
      if (!this.fill()) return 0;
    }
    const at = buffer + this.at;
    this.at += count;
    this.left -= count;
    return at;
  }

  /** Moves what is left to the front of the buffer and reads on behind it. */
  private fill(): bool {
    const kept = this.filled - this.at;
    memory.copy(buffer, buffer + this.at, kept);
    const count = hostRead(buffer + kept, BUFFER_BYTES - kept);
    this.at = 0;
    this.filled = kept + count;
    if (count == 0) this.fail("the snapshot is too short");
    return count > 0;
  }
}

/** The types of globals. */
export enum GlobalType {
  I32 = 0,
  I64 = 1,
  F32 = 2,
  F64 = 3,
  V128 = 4,
}

/** A mutable global: its type, and its 16 bytes of bits as two little-endian numbers. Most are in the low one. */
export class Global {
  constructor(
    readonly type: GlobalType,
    readonly low: u64,
    readonly high: u64,
  ) {}
}

/**
 * The memory of the instance that `adopt` takes over. Numbers are little-endian. A failure sticks, as a Reader's does: from then on
 * every number is 0, every text is empty, `good` is false, and the reason of the first failure rejects.
 */
export class OldInstance {
  /** The SHA-256 of its module: 32 bytes. */
  readonly module: Uint8Array;
  /** Size of its memory in bytes. */
  readonly size: u64 = hostOldMemorySize();
  private failure: string = "";

  constructor(module: Uint8Array) {
    this.module = module;
  }

  /** Whether everything so far could be read. */
  get good(): bool {
    return this.failure.length == 0;
  }

  u8(at: u64): u8 {
    return <u8>this.number(at, 1);
  }

  /** A pointer or a length, say. */
  u32(at: u64): u32 {
    return <u32>this.number(at, 4);
  }

  u64(at: u64): u64 {
    return this.number(at, 8);
  }

  /** So many bytes. Nothing is allocated before they are known to be there. */
  raw(at: u64, count: u32): Uint8Array {
    if (!this.has(at, count)) return new Uint8Array(0);
    const bytes = new Uint8Array(count);
    hostOldMemory(at, bytes.dataStart, count);
    return bytes;
  }

  /** The `number`-th mutable global, from 0 on, in the order of the module's indices; null if there are not so many. */
  global(number: u32): Global | null {
    const type = hostOldGlobal(number, buffer);
    return type < 0 ? null : new Global(type, load<u64>(buffer), load<u64>(buffer, 8));
  }

  /** Why it must be rejected, or null. */
  problem(): string | null {
    return this.good ? null : this.failure;
  }

  private number(at: u64, count: u32): u64 {
    if (!this.has(at, count)) return 0;
    store<u64>(buffer, 0);
    hostOldMemory(at, buffer, count);
    return load<u64>(buffer);
  }

  private has(at: u64, count: u32): bool {
    if (this.good && (at > this.size || <u64>count > this.size - at)) {
      this.failure = "the old memory ends before " + count.toString() + " bytes at 0x" + at.toString(16);
    }
    return this.good;
  }
}

/** The text as UTF-8. */
export function utf8(text: string): Uint8Array {
  return Uint8Array.wrap(String.UTF8.encode(text, false, String.UTF8.ErrorMode.REPLACE));
}

/** The bytes as text, or null if they are not UTF-8. */
export function textOf(bytes: Uint8Array): string | null {
  return isUtf8(bytes) ? String.UTF8.decodeUnsafe(bytes.dataStart, bytes.length) : null;
}

function isUtf8(bytes: Uint8Array): bool {
  const length = bytes.length;
  let at = 0;
  while (at < length) {
    const first: u32 = bytes[at++];
    if (first < 0x80) continue;
    let more = 0;
    let low: u32 = 0x80;
    let high: u32 = 0xbf;
    if (first >= 0xc2 && first <= 0xdf) {
      more = 1;
    } else if (first >= 0xe0 && first <= 0xef) {
      more = 2;
      if (first == 0xe0) low = 0xa0;
      if (first == 0xed) high = 0x9f;
    } else if (first >= 0xf0 && first <= 0xf4) {
      more = 3;
      if (first == 0xf0) low = 0x90;
      if (first == 0xf4) high = 0x8f;
    } else {
      return false;
    }
    for (; more > 0; more--) {
      if (at == length) return false;
      const next: u32 = bytes[at++];
      if (next < low || next > high) return false;
      low = 0x80;
      high = 0xbf;
    }
  }
  return true;
}

let machine: StateMachine | null = null;
const context = new Context();

/** Says which state machine this module is. Call it once, at the top level of the entry file. */
export function register(it: StateMachine): void {
  if (machine !== null) abort("register was called twice: a module is one state machine", "raft_fsm.ts");
  machine = it;
}

function registered(): StateMachine {
  if (machine === null) abort("no state machine: call register(new ...) in the entry file", "raft_fsm.ts");
  return machine!;
}

function input(length: u32): Uint8Array {
  const bytes = new Uint8Array(length);
  let done: u32 = 0;
  while (done < length) {
    const count = hostRead(bytes.dataStart + done, length - done);
    if (count == 0) break;
    done += count;
  }
  return bytes;
}

function finish(result: Result): i32 {
  const bytes = result.bytes;
  const output = bytes !== null ? bytes : utf8(result.text);
  hostWrite(output.dataStart, output.length);
  return result.rejected ? 1 : 0;
}

export function raft_fsm_abi_v1(): void {}

export function init(): i32 {
  return finish(registered().init(context));
}

export function apply(length: u32): i32 {
  return finish(registered().apply(context, input(length)));
}

export function query(length: u32): i32 {
  return finish(registered().query(context, input(length)));
}

export function classify(length: u32): i32 {
  return finish(ok(registered().classify(context, input(length))));
}

export function check(): i32 {
  return finish(registered().check(context));
}

export function state_version(): i32 {
  return finish(ok(registered().stateVersion()));
}

export function restores(length: u32): i32 {
  const version = textOf(input(length));
  return finish(version !== null ? registered().restores(version) : reject("the name of a format is not UTF-8"));
}

export function snapshot(): i32 {
  const out = new Writer();
  registered().snapshot(context, out);
  out.flush();
  return 0;
}

export function restore(length: u32): i32 {
  const reader = new Reader(length);
  const result = registered().restore(context, reader);
  if (result.rejected) return finish(result);
  const problem = reader.problem();
  return problem !== null ? finish(reject(problem)) : 0;
}

export function adopt(length: u32): i32 {
  const old = new OldInstance(input(length));
  const result = registered().adopt(context, old);
  const problem = old.problem();
  return finish(problem !== null ? reject(problem) : result);
}

/** What asc calls for a failed assertion, an index out of range and the like. It must not allocate: memory may be full. */
export function abort(message: string | null = null, file: string | null = null, line: u32 = 0, column: u32 = 0): void {
  let at = put(buffer, "abort: ");
  at = put(at, message !== null ? message : "no message");
  if (file !== null) {
    at = put(put(at, " at "), file);
    if (line > 0) at = putNumber(put(at, ":"), line);
  }
  hostLog(Level.Error, buffer, <u32>(at - buffer));
  unreachable();
}

/** Each piece is cut at 1,000 characters, so that four of them fit the buffer. */
function put(at: usize, text: string): usize {
  const length = min(text.length, 1000);
  return at + String.UTF8.encodeUnsafe(changetype<usize>(text), length, at);
}

function putNumber(at: usize, number: u32): usize {
  let scale: u32 = 1;
  while (number / scale >= 10) scale *= 10;
  for (; scale > 0; scale /= 10) store<u8>(at++, <u8>(0x30 + ((number / scale) % 10)));
  return at;
}
