// A small host for tests: loads a built module and plays the part of raft-host, without fuel and limits.
// `raft-host check` is the real thing; this one is for unit tests with `node --test`.
import { readFileSync } from "node:fs";

const LEVELS = { 1: "error", 2: "warn", 3: "info", 4: "debug" };
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Loads a module (a path or URL) as a new cluster would: `init` runs at index 1. */
export function load(path) {
  const node = new Node(new WebAssembly.Module(readFileSync(path)));
  node.found();
  return node;
}

/** What a call comes to that the module does not have. */
function nothing() {
  return { status: "ok", bytes: Buffer.alloc(0), text: "", events: [], logs: [] };
}

export class Node {
  #module;
  #exports;
  #input = new Uint8Array(0);
  #output = [];
  #events = [];
  #logs = [];
  #random = 0n;
  pendingMs = 0; // For whoever lets time go on at the next command only.
  index = 1n;
  timeMs = 1_700_000_000_000n;
  actor = ""; // Gives the commands from now on; "" is nobody.
  #acting = "";
  #old = { memory: new Uint8Array(0), globals: [] };

  constructor(module) {
    this.#module = module;
    for (const { module: from, name } of WebAssembly.Module.imports(module)) {
      if (from !== "raft_fsm_v1") throw new Error(`raft-host has no import ${from}.${name}`);
    }
    this.#exports = new WebAssembly.Instance(module, { raft_fsm_v1: this.#imports() }).exports;
    for (const name of ["raft_fsm_abi_v1", "memory", "apply", "snapshot", "restore"]) {
      if (!(name in this.#exports)) {
        throw new Error(`the module does not export ${name}: does the entry file say export { … } from "./raft_fsm"?`);
      }
    }
  }

  /** Runs `init`, if there is one. */
  found() {
    if (this.#exports.init) this.#call("init", new Uint8Array(0), []);
  }

  /** Runs a command (text or bytes) at the next index. */
  apply(command) {
    this.index += 1n;
    return this.#run("apply", command);
  }

  /** The class of a command, as if it came next; no text if it has none. */
  classify(command) {
    if (!this.#exports.classify) return nothing();
    this.index += 1n;
    const result = this.#run("classify", command);
    this.index -= 1n;
    return result;
  }

  /** Whether the state keeps its own rules. */
  check() {
    return this.#exports.check ? this.#call("check", new Uint8Array(0), []) : nothing();
  }

  /** The name of the format of its snapshots; no text if it has none. */
  stateVersion() {
    return this.#exports.state_version ? this.#call("state_version", new Uint8Array(0), []) : nothing();
  }

  /** Whether it restores snapshots of a format. */
  restores(version) {
    return this.#exports.restores ? this.#run("restores", version) : nothing();
  }

  query(question) {
    return this.#run("query", question);
  }

  /** The snapshot's bytes. */
  snapshot() {
    const result = this.#call("snapshot", new Uint8Array(0), []);
    if (result.status !== "ok") throw new Error(`snapshot ${result.status}: ${result.text}`);
    return result.bytes;
  }

  /** Reads a snapshot; meant for a fresh node. */
  restore(bytes) {
    return this.#run("restore", bytes);
  }

  /**
   * Takes over the memory of an instance of the module with this SHA-256, and its mutable globals: `{ type, bits }`, of which the
   * type is the ABI's number and the bits a bigint. Meant for a fresh node.
   */
  adopt(module, memory, globals = []) {
    this.#old = { memory, globals };
    try {
      return this.#run("adopt", module);
    } finally {
      this.#old = { memory: new Uint8Array(0), globals: [] };
    }
  }

  /** What an upgrade does: a fresh instance, or another module, takes over this one's snapshot. */
  renew(path) {
    return this.undone(this.snapshot(), path);
  }

  /** A fresh instance with this snapshot, at the same index and time: what takes over after a trap. */
  undone(snapshot, path) {
    const next = new Node(path ? new WebAssembly.Module(readFileSync(path)) : this.#module);
    next.index = this.index;
    next.timeMs = this.timeMs;
    next.pendingMs = this.pendingMs;
    next.actor = this.actor;
    const result = next.restore(snapshot);
    if (result.status !== "ok") throw new Error(`restore ${result.status}: ${result.text}`);
    return next;
  }

  /** Lets the log's clock go on. */
  advance(ms) {
    this.timeMs += BigInt(ms);
  }

  get memoryBytes() {
    return this.#exports.memory.buffer.byteLength;
  }

  #run(name, input) {
    const bytes = typeof input === "string" ? encoder.encode(input) : input;
    return this.#call(name, bytes, [bytes.length]);
  }

  #call(name, input, parameters) {
    this.#input = input;
    this.#output = [];
    this.#events = [];
    this.#logs = [];
    this.#acting = name === "apply" || name === "classify" ? this.actor : "";
    this.#random = (this.index << 8n) | BigInt(name.length);
    let status;
    try {
      const code = this.#exports[name](...parameters);
      status = code === 0 ? "ok" : code > 0 ? "rejected" : "trapped";
    } catch (error) {
      if (!(error instanceof WebAssembly.RuntimeError || error instanceof RangeError)) throw error;
      status = "trapped"; // The instance is unusable from now on; raft-host would undo the call.
    }
    const bytes = Buffer.concat(this.#output);
    const events = status === "ok" ? this.#events : [];
    return { status, bytes, text: decoder.decode(bytes), events, logs: this.#logs };
  }

  #bytes(ptr, length) {
    return new Uint8Array(this.#exports.memory.buffer, ptr >>> 0, length >>> 0);
  }

  #imports() {
    return {
      read: (ptr, cap) => {
        const piece = this.#input.subarray(0, cap >>> 0);
        this.#bytes(ptr, piece.length).set(piece);
        this.#input = this.#input.subarray(piece.length);
        return piece.length;
      },
      write: (ptr, length) => void this.#output.push(this.#bytes(ptr, length).slice()),
      index: () => this.index,
      ordinal: () => 0, // Every command is an entry of its own here.
      time_ms: () => this.timeMs,
      actor: (ptr, cap) => {
        const name = encoder.encode(this.#acting);
        const piece = name.subarray(0, cap >>> 0);
        this.#bytes(ptr, piece.length).set(piece);
        return name.length;
      },
      random: (ptr, length) => {
        const bytes = this.#bytes(ptr, length);
        for (let i = 0; i < bytes.length; i++) {
          this.#random = BigInt.asUintN(64, this.#random * 6364136223846793005n + 1442695040888963407n);
          bytes[i] = Number(this.#random >> 56n);
        }
      },
      emit: (topic, topicLength, ptr, length) => {
        const payload = this.#bytes(ptr, length).slice();
        this.#events.push({ topic: decoder.decode(this.#bytes(topic, topicLength)), payload, text: decoder.decode(payload) });
      },
      old_memory_size: () => BigInt(this.#old.memory.length),
      old_memory: (at, ptr, length) => {
        const end = BigInt.asUintN(64, at) + BigInt(length >>> 0);
        if (end > this.#old.memory.length) throw new WebAssembly.RuntimeError("beyond the old memory");
        this.#bytes(ptr, length).set(this.#old.memory.subarray(Number(end) - (length >>> 0), Number(end)));
      },
      old_global: (number, ptr) => {
        const global = this.#old.globals[number >>> 0];
        if (global === undefined) return -1;
        const bits = this.#bytes(ptr, 16);
        for (let i = 0; i < 16; i++) bits[i] = Number((global.bits >> BigInt(8 * i)) & 255n);
        return global.type;
      },
      log: (level, ptr, length) => {
        this.#logs.push({ level: LEVELS[Math.min(Math.max(level, 1), 4)], text: decoder.decode(this.#bytes(ptr, length)) });
      },
    };
  }
}
