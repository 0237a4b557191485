// feature-flags: flags with percentage roll-outs, rules and an audit trail. Commands and queries are JSON; see README.md.
import { Context, ok, Reader, register, reject, Result, StateMachine, textOf, Writer } from "../../../guest-sdk/assemblyscript/raft_fsm";
import { ALL, Audit, Flag, MOST_AUDIT, named } from "./flag";
import { Json, Kind, Parser, quote } from "./json";
export { raft_fsm_abi_v1, apply, query, snapshot, restore } from "../../../guest-sdk/assemblyscript/raft_fsm";

const MAGIC = "FLG1";
const MOST_FLAGS = 10000;
const MOST_BYTES = 65536;
const MOST_STATE: i64 = 134217728; // Characters of settings and audit trails: well within a memory of 1 GiB.
const MOST_PAGE = 1000000; // Characters of a page, which ends early rather than exceed what an answer may have.

/** What a parse found: the request, or why there is none. */
class Request {
  json: Json = new Json(Kind.Null);
  op: string = "";
  problem: string = "";

  constructor(bytes: Uint8Array) {
    this.parse(bytes);
  }

  private parse(bytes: Uint8Array): void {
    const text = bytes.length <= MOST_BYTES ? textOf(bytes) : null;
    if (text === null) {
      this.problem = "a request is JSON of at most 65536 bytes";
      return;
    }
    const parser = new Parser(text);
    const json = parser.parse();
    this.problem = parser.problem;
    if (json === null) return;
    this.json = json;
    this.op = this.text("op", 64, true);
    if (json.kind != Kind.Object) this.problem = 'a request is an object such as {"op":"get","flag":"new-page"}';
  }

  fail(problem: string): void {
    if (this.problem.length == 0) this.problem = problem;
  }

  text(key: string, most: i32, required: bool): string {
    const value = this.json.get(key);
    if (value === null && !required) return "";
    if (value === null || value.kind != Kind.Text || value.text.length > most || (required && value.text.length == 0)) {
      this.fail(key + " must be a text of at most " + most.toString() + " characters");
      return "";
    }
    return value.text;
  }

  number(key: string, otherwise: i64, least: i64, most: i64): i64 {
    const value = this.json.get(key);
    if (value === null) return otherwise;
    if (value.kind != Kind.Number || value.number < least || value.number > most) {
      this.fail(key + " must be a number from " + least.toString() + " to " + most.toString());
    }
    return value.number;
  }

  /** A field that is unknown is a mistake: it would be ignored silently otherwise. */
  only(keys: string[]): void {
    for (let i = 0; i < this.json.keys.length; i++) {
      if (!keys.includes(this.json.keys[i])) this.fail("unknown field: " + this.json.keys[i]);
    }
  }

  attributes(): Json | null {
    const given = this.json.get("attributes");
    if (given === null) return null;
    if (given.kind != Kind.Object || given.keys.length > 64) this.fail("attributes is an object of at most 64 texts");
    for (let i = 0; i < given.items.length; i++) {
      if (given.items[i].kind != Kind.Text) this.fail("attributes are texts");
    }
    return given;
  }
}

class FeatureFlags extends StateMachine {
  private flags: Flag[] = []; // Sorted by key.
  private size: i64 = 0; // The sum of the flags' sizes.

  apply(ctx: Context, command: Uint8Array): Result {
    const request = new Request(command);
    const op = request.op;
    if (request.problem.length > 0) return reject(request.problem);
    if (op != "create" && op != "update" && op != "archive" && op != "unarchive" && op != "delete") return reject("unknown op: " + op);

    const key = request.text("flag", 64, true);
    const by = request.text("by", 128, true);
    const reason = request.text("reason", 512, false);
    const expect = request.number("expect", -1, 0, i64.MAX_VALUE);
    if (op == "create") {
      request.only(["op", "flag", "by", "reason", "salt", "on", "rollout", "variants", "off", "rules"]);
    } else if (op == "update") {
      request.only(["op", "flag", "by", "reason", "expect", "on", "rollout", "variants", "off", "rules"]);
    } else {
      request.only(["op", "flag", "by", "reason", "expect"]);
    }
    const salt = request.text("salt", 64, false);
    if (!wellNamed(key)) request.fail("flag must be of a-z, 0-9, dot, dash and underscore");
    if (request.problem.length > 0) return reject(request.problem);

    const at = this.find(key);
    const old = at >= 0 ? this.flags[at] : null;
    if (op == "create") {
      if (old !== null) return reject("there is a flag " + key + " already");
      if (this.flags.length == MOST_FLAGS) return reject("there are 10000 flags already: delete archived ones");
    } else {
      if (old === null) return reject("there is no flag " + key);
      if (expect >= 0 && <u64>expect != old.version) return reject("the flag is at version " + old.version.toString() + ", not " + expect.toString());
    }
    const before = old !== null ? old : new Flag(key, salt.length > 0 ? salt : key);
    if (op == "delete") {
      if (!before.archived) return reject("only an archived flag can be deleted");
      this.flags.splice(at, 1);
      this.size -= before.size;
      ctx.emit("flag-deleted", '{"flag":' + quote(key) + ',"by":' + quote(by) + ',"reason":' + quote(reason) + "}");
      return ok("{}");
    }
    if (op == "update" && before.archived) return reject("the flag is archived: unarchive it first");

    const after = before.copy();
    const problem = change(after, request);
    if (problem.length > 0) return reject(problem);
    const changed = after.change(before);
    if (op != "create" && changed == "{}") return reject("nothing would change");
    if (after.json().length > 16384) return reject("the flag's settings would exceed 16384 characters");
    after.version++;
    const audit = new Audit(after.version, ctx.index, ctx.timeMs, by, reason, changed);
    after.audit = after.audit.slice(after.audit.length == MOST_AUDIT ? 1 : 0);
    after.audit.push(audit);
    after.measure();
    const size = this.size + after.size - before.size;
    if (size > MOST_STATE && after.size > before.size) return reject("the flags and their audit trails are too large: delete archived ones");

    // From here on nothing can be refused.
    this.size = size;
    if (at >= 0) this.flags[at] = after;
    else this.insert(~at, after);
    ctx.emit("flag-changed", '{"flag":' + quote(key) + ',"op":"' + op + '",' + audit.json().substring(1));
    return ok('{"version":' + after.version.toString() + "}");
  }

  query(ctx: Context, question: Uint8Array): Result {
    const request = new Request(question);
    const op = request.op;
    if (request.problem.length > 0) return reject(request.problem);
    if (op == "list" || op == "evaluate-all") return this.page(op, request);
    if (op == "stats") {
      request.only(["op"]);
      return request.problem.length > 0 ? reject(request.problem) : ok(this.stats());
    }
    if (op != "get" && op != "evaluate" && op != "audit") return reject("unknown op: " + op);

    const key = request.text("flag", 64, true);
    const subject = op == "evaluate" ? request.text("subject", 256, true) : "";
    const attributes = op == "evaluate" ? request.attributes() : null;
    const below = request.number("before", i64.MAX_VALUE, 0, i64.MAX_VALUE);
    const limit = <i32>request.number("limit", 20, 1, 50);
    if (op == "get") request.only(["op", "flag"]);
    else if (op == "evaluate") request.only(["op", "flag", "subject", "attributes"]);
    else request.only(["op", "flag", "before", "limit"]);
    if (request.problem.length > 0) return reject(request.problem);
    const at = this.find(key);
    if (at < 0) return reject("there is no flag " + key);
    const flag = this.flags[at];
    if (op == "get") return ok(flag.json());
    if (op == "evaluate") return ok(flag.evaluate(subject, attributes));

    const parts: string[] = [];
    let characters = 0;
    for (let i = flag.audit.length - 1; i >= 0 && parts.length < limit && characters < MOST_PAGE; i--) {
      if (flag.audit[i].version >= <u64>below) continue;
      const part = flag.audit[i].json();
      characters += part.length;
      parts.push(part);
    }
    return ok("[" + parts.join(",") + "]");
  }

  snapshot(ctx: Context, out: Writer): void {
    out.rawText(MAGIC);
    out.u32(this.flags.length);
    for (let i = 0; i < this.flags.length; i++) this.flags[i].write(out);
  }

  restore(ctx: Context, input: Reader): Result {
    if (!input.magic(MAGIC)) return reject("not a snapshot of feature-flags, or one of a later version");
    const count = input.u32();
    if (count > <u32>MOST_FLAGS) return reject("the snapshot has too many flags");
    const flags: Flag[] = [];
    let size: i64 = 0;
    for (let i: u32 = 0; i < count && input.good; i++) {
      const flag = Flag.read(input);
      if (i > 0 && flags[i - 1].key >= flag.key) input.fail("the snapshot's flags are not in order");
      size += flag.size;
      flags.push(flag);
    }
    this.size = size;
    this.flags = flags;
    return ok();
  }

  /** Flags by prefix, after a key, at most `limit`; each as settings or as evaluated for a subject. */
  private page(op: string, request: Request): Result {
    const all = op == "evaluate-all";
    const subject = all ? request.text("subject", 256, true) : "";
    const attributes = all ? request.attributes() : null;
    const prefix = request.text("prefix", 64, false);
    const after = request.text("after", 64, false);
    const limit = <i32>request.number("limit", 100, 1, 200);
    request.only(all ? ["op", "subject", "attributes", "prefix", "after", "limit"] : ["op", "prefix", "after", "limit"]);
    if (request.problem.length > 0) return reject(request.problem);

    let at = this.find(after > prefix ? after : prefix);
    if (at < 0) at = ~at;
    const parts: string[] = [];
    let characters = 0;
    for (; at < this.flags.length && parts.length < limit && characters < MOST_PAGE; at++) {
      const flag = this.flags[at];
      if (!flag.key.startsWith(prefix)) break;
      if (flag.key == after || (all && flag.archived)) continue;
      const part = all ? flag.evaluate(subject, attributes) : flag.json();
      characters += part.length;
      parts.push(part);
    }
    return ok("[" + parts.join(",") + "]");
  }

  private stats(): string {
    let on = 0;
    let archived = 0;
    for (let i = 0; i < this.flags.length; i++) {
      if (this.flags[i].archived) archived++;
      else if (this.flags[i].on) on++;
    }
    return '{"flags":' + this.flags.length.toString() + ',"on":' + on.toString() + ',"archived":' + archived.toString() + "}";
  }

  /** Where the flag is, or ~ of where it would be. */
  private find(key: string): i32 {
    let low = 0;
    let high = this.flags.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.flags[middle].key < key) low = middle + 1;
      else high = middle;
    }
    return low < this.flags.length && this.flags[low].key == key ? low : ~low;
  }

  private insert(at: i32, flag: Flag): void {
    this.flags.push(flag);
    for (let i = this.flags.length - 1; i > at; i--) this.flags[i] = this.flags[i - 1];
    this.flags[at] = flag;
  }
}

/** Puts the request's settings into the flag, a copy; answers what is wrong, or nothing. */
function change(flag: Flag, request: Request): string {
  if (request.op == "archive") flag.archived = true;
  if (request.op == "unarchive") flag.archived = false;
  const on = request.json.get("on");
  if (on !== null && on.kind != Kind.Bool) return "on must be true or false";
  if (on !== null) flag.on = on.flag;
  flag.rollout = <u32>request.number("rollout", flag.rollout, 0, ALL);
  if (request.json.get("off") !== null) flag.off = request.text("off", 64, true);
  const variants = request.json.get("variants");
  if (variants !== null) request.fail(flag.setVariants(variants));
  const rules = request.json.get("rules");
  if (rules !== null) request.fail(flag.setRules(rules));
  for (let i = 0; i < flag.rules.length; i++) {
    if (!flag.has(flag.rules[i].variant)) request.fail("a rule names a variant that the flag does not have: " + flag.rules[i].variant);
  }
  return request.problem;
}

function wellNamed(key: string): bool {
  for (let i = 0; i < key.length; i++) {
    const c = key.charCodeAt(i);
    const good = (c >= 0x61 && c <= 0x7a) || (c >= 0x30 && c <= 0x39) || c == 0x2e || c == 0x2d || c == 0x5f;
    if (!good) return false;
  }
  return named(key);
}

register(new FeatureFlags());
