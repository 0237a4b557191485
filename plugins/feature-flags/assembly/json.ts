// A small strict JSON reader and writer. Depth is limited, so that no input can overflow the stack; numbers are integers.

const MOST_DEPTH = 16;

export enum Kind { Null, Bool, Number, Text, List, Object }

export class Json {
  flag: bool = false;
  number: i64 = 0;
  text: string = "";
  keys: string[] = [];
  items: Json[] = [];
  constructor(readonly kind: Kind) {}

  get(key: string): Json | null {
    const at = this.keys.indexOf(key);
    return at < 0 ? null : this.items[at];
  }
}

export class Parser {
  /** Why the text is not what it should be; empty while all is well. */
  problem: string = "";
  private at: i32 = 0;
  constructor(private source: string) {}

  /** The whole text as one value, or null and a `problem`. */
  parse(): Json | null {
    const value = this.value(0);
    if (value === null) return null;
    this.space();
    if (this.at < this.source.length) return this.fail("something follows the JSON value");
    return value;
  }

  private fail(what: string): Json | null {
    if (this.problem.length == 0) this.problem = what + " (at character " + this.at.toString() + ")";
    return null;
  }

  private peek(): i32 {
    return this.at < this.source.length ? this.source.charCodeAt(this.at) : -1;
  }

  private space(): void {
    for (let c = this.peek(); c == 0x20 || c == 0x0a || c == 0x0d || c == 0x09; c = this.peek()) this.at++;
  }

  private value(depth: i32): Json | null {
    if (depth > MOST_DEPTH) return this.fail("JSON nests more than 16 deep");
    this.space();
    const c = this.peek();
    if (c == 0x7b) return this.object(depth);
    if (c == 0x5b) return this.list(depth);
    if (c == 0x22) {
      const value = new Json(Kind.Text);
      value.text = this.string();
      return this.problem.length > 0 ? null : value;
    }
    if (c == 0x2d || (c >= 0x30 && c <= 0x39)) return this.integer();
    if (this.word("true") || this.word("false")) {
      const value = new Json(Kind.Bool);
      value.flag = c == 0x74;
      return value;
    }
    return this.word("null") ? new Json(Kind.Null) : this.fail("not JSON");
  }

  private word(word: string): bool {
    if (this.source.substr(this.at, word.length) != word) return false;
    this.at += word.length;
    return true;
  }

  private integer(): Json | null {
    const start = this.at;
    const negative = this.peek() == 0x2d;
    if (negative) this.at++;
    const first = this.at;
    let number: i64 = 0;
    for (let c = this.peek(); c >= 0x30 && c <= 0x39; c = this.peek()) {
      number = number * 10 + <i64>(c - 0x30);
      this.at++;
      if (this.at - first > 18) return this.fail("a number has more than 18 digits");
    }
    const digits = this.at - first;
    if (digits == 0 || (digits > 1 && this.source.charCodeAt(first) == 0x30)) {
      this.at = start;
      return this.fail("not a number");
    }
    const next = this.peek();
    if (next == 0x2e || next == 0x65 || next == 0x45) return this.fail("numbers are integers");
    const value = new Json(Kind.Number);
    value.number = negative ? -number : number;
    return value;
  }

  private list(depth: i32): Json | null {
    const list = new Json(Kind.List);
    this.at++;
    this.space();
    if (this.peek() == 0x5d) {
      this.at++;
      return list;
    }
    while (true) {
      const item = this.value(depth + 1);
      if (item === null) return null;
      list.items.push(item);
      this.space();
      const c = this.peek();
      if (c != 0x2c && c != 0x5d) return this.fail("a list needs , or ]");
      this.at++;
      if (c == 0x5d) return list;
    }
  }

  private object(depth: i32): Json | null {
    const object = new Json(Kind.Object);
    this.at++;
    this.space();
    if (this.peek() == 0x7d) {
      this.at++;
      return object;
    }
    while (true) {
      this.space();
      if (this.peek() != 0x22) return this.fail("an object needs a key in quotes");
      const key = this.string();
      if (this.problem.length > 0) return null;
      if (object.keys.includes(key)) return this.fail("a key is there twice");
      if (object.keys.length == 256) return this.fail("an object has more than 256 keys");
      this.space();
      if (this.peek() != 0x3a) return this.fail("a key needs :");
      this.at++;
      const item = this.value(depth + 1);
      if (item === null) return null;
      object.keys.push(key);
      object.items.push(item);
      this.space();
      const c = this.peek();
      if (c != 0x2c && c != 0x7d) return this.fail("an object needs , or }");
      this.at++;
      if (c == 0x7d) return object;
    }
  }

  private string(): string {
    let text = "";
    let start = ++this.at;
    while (true) {
      const c = this.peek();
      if (c < 0x20) {
        this.fail(c < 0 ? "a text does not end" : "a text has a control character");
        return "";
      }
      if (c == 0x22) {
        text += this.source.substring(start, this.at++);
        return text;
      }
      if (c != 0x5c) {
        this.at++;
        continue;
      }
      text += this.source.substring(start, this.at++);
      text += this.escape();
      if (this.problem.length > 0) return "";
      start = this.at;
    }
  }

  private escape(): string {
    const c = this.peek();
    this.at++;
    if (c == 0x22 || c == 0x5c || c == 0x2f) return String.fromCharCode(c);
    if (c == 0x6e) return "\n";
    if (c == 0x74) return "\t";
    if (c == 0x72) return "\r";
    if (c == 0x62) return "\b";
    if (c == 0x66) return "\f";
    if (c == 0x75) {
      const unit = this.hex();
      if (unit >= 0xd800 && unit < 0xdc00 && this.word("\\u")) {
        const low = this.hex();
        if (low >= 0xdc00 && low < 0xe000) return String.fromCharCode(unit, low);
      } else if (unit >= 0 && (unit < 0xd800 || unit > 0xdfff)) {
        return String.fromCharCode(unit);
      }
    }
    this.fail("a wrong escape");
    return "";
  }

  private hex(): i32 {
    let unit = 0;
    for (let i = 0; i < 4; i++) {
      const c = this.peek() | 0x20;
      const digit = c >= 0x30 && c <= 0x39 ? c - 0x30 : c >= 0x61 && c <= 0x66 ? c - 0x57 : -1;
      if (digit < 0) return -1;
      unit = unit * 16 + digit;
      this.at++;
    }
    return unit;
  }
}

/** The text in quotes, escaped. */
export function quote(text: string): string {
  let out = '"';
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c >= 0x20 && c != 0x22 && c != 0x5c) continue;
    out += text.substring(start, i);
    out += c < 0x20 ? "\\u" + c.toString(16).padStart(4, "0") : "\\" + String.fromCharCode(c);
    start = i + 1;
  }
  return out + text.substring(start) + '"';
}
