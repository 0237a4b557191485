// A flag: its settings, how it is evaluated, its audit trail, and its part of the snapshot.
import { Reader, utf8, Writer } from "../../../guest-sdk/assemblyscript/raft_fsm";
import { Json, Kind, quote } from "./json";

export const ALL: u32 = 10000; // Basis points.
export const MOST_AUDIT = 50;
const MOST_VARIANTS = 16;
const MOST_RULES = 16;
const MOST_VALUES = 64;

export class Variant {
  constructor(readonly name: string, readonly weight: u32) {}
}

/** If the attribute has one of the values, the subject gets the variant. The first rule that matches counts. */
export class Rule {
  constructor(readonly attribute: string, readonly values: string[], readonly variant: string) {}
}

/** One change: who, when, at which entry, what (JSON of the changed fields, before and after) and why. */
export class Audit {
  constructor(
    readonly version: u64, readonly index: u64, readonly timeMs: u64,
    readonly by: string, readonly reason: string, readonly change: string,
  ) {}

  json(): string {
    return '{"version":' + this.version.toString() + ',"index":' + this.index.toString() + ',"time_ms":' + this.timeMs.toString() +
      ',"by":' + quote(this.by) + ',"reason":' + quote(this.reason) + ',"change":' + this.change + "}";
  }
}

export class Flag {
  on: bool = false;
  archived: bool = false;
  rollout: u32 = ALL;
  off: string = "off";
  version: u64 = 0;
  variants: Variant[] = [new Variant("on", 1)];
  rules: Rule[] = [];
  audit: Audit[] = [];
  size: i64 = 0; // Characters of settings and audit trail, once measured.
  constructor(readonly key: string, readonly salt: string) {}

  measure(): void {
    this.size = this.json().length;
    for (let i = 0; i < this.audit.length; i++) this.size += this.audit[i].json().length;
  }

  /** The same settings, to be changed and then put in the place of these. The audit trail is shared. */
  copy(): Flag {
    const flag = new Flag(this.key, this.salt);
    flag.on = this.on;
    flag.archived = this.archived;
    flag.rollout = this.rollout;
    flag.off = this.off;
    flag.version = this.version;
    flag.variants = this.variants;
    flag.rules = this.rules;
    flag.audit = this.audit;
    return flag;
  }

  json(): string {
    return '{"flag":' + quote(this.key) + ',"version":' + this.version.toString() + ',"on":' + this.on.toString() +
      ',"archived":' + this.archived.toString() + ',"rollout":' + this.rollout.toString() + ',"salt":' + quote(this.salt) +
      ',"variants":' + this.variantsJson() + ',"off":' + quote(this.off) + ',"rules":' + this.rulesJson() + "}";
  }

  /** The fields that differ from those of `before`, each as [before, after]. */
  change(before: Flag): string {
    let out = "";
    out = field(out, "on", before.on.toString(), this.on.toString());
    out = field(out, "archived", before.archived.toString(), this.archived.toString());
    out = field(out, "rollout", before.rollout.toString(), this.rollout.toString());
    out = field(out, "variants", before.variantsJson(), this.variantsJson());
    out = field(out, "off", quote(before.off), quote(this.off));
    out = field(out, "rules", before.rulesJson(), this.rulesJson());
    return "{" + out + "}";
  }

  private variantsJson(): string {
    let out = "{";
    for (let i = 0; i < this.variants.length; i++) {
      out += (i > 0 ? "," : "") + quote(this.variants[i].name) + ":" + this.variants[i].weight.toString();
    }
    return out + "}";
  }

  private rulesJson(): string {
    let out = "[";
    for (let i = 0; i < this.rules.length; i++) {
      const rule = this.rules[i];
      out += (i > 0 ? "," : "") + '{"attribute":' + quote(rule.attribute) + ',"in":[';
      for (let j = 0; j < rule.values.length; j++) out += (j > 0 ? "," : "") + quote(rule.values[j]);
      out += '],"variant":' + quote(rule.variant) + "}";
    }
    return out + "]";
  }

  /** The answer for a subject, as JSON. Attributes are an object of texts. */
  evaluate(subject: string, attributes: Json | null): string {
    if (this.archived) return this.answer(this.off, "archived");
    if (!this.on) return this.answer(this.off, "off");
    for (let i = 0; i < this.rules.length; i++) {
      const rule = this.rules[i];
      const value = attributes !== null ? attributes.get(rule.attribute) : null;
      if (value !== null && rule.values.includes(value.text)) return this.answer(rule.variant, "rule");
    }
    // Two hashes: so a subject keeps its variant when the roll-out changes.
    if (bucket("rollout", this.salt, subject) % ALL >= <u64>this.rollout) return this.answer(this.off, "rollout");
    let total: u64 = 0;
    for (let i = 0; i < this.variants.length; i++) total += this.variants[i].weight;
    let point = bucket("variant", this.salt, subject) % total;
    for (let i = 0; i < this.variants.length; i++) {
      const weight: u64 = this.variants[i].weight;
      if (point < weight) return this.answer(this.variants[i].name, "split");
      point -= weight;
    }
    return this.answer(this.off, "off"); // Not reached: the point is below the total.
  }

  private answer(variant: string, reason: string): string {
    const value = variant == "on" ? "true" : variant == "off" ? "false" : quote(variant);
    return '{"flag":' + quote(this.key) + ',"value":' + value + ',"variant":' + quote(variant) +
      ',"reason":"' + reason + '","version":' + this.version.toString() + "}";
  }

  has(variant: string): bool {
    for (let i = 0; i < this.variants.length; i++) if (this.variants[i].name == variant) return true;
    return variant == this.off;
  }

  /** Sets variants from {"name": weight, …}; answers what is wrong, or nothing. */
  setVariants(given: Json): string {
    if (given.kind != Kind.Object || given.keys.length == 0 || given.keys.length > MOST_VARIANTS) {
      return "variants is an object of 1 to 16 names and weights";
    }
    const variants: Variant[] = [];
    let total: i64 = 0;
    for (let i = 0; i < given.keys.length; i++) {
      const weight = given.items[i];
      if (!named(given.keys[i]) || weight.kind != Kind.Number || weight.number < 0 || weight.number > 10000) {
        return "a variant has a name of 1 to 64 characters and a weight from 0 to 10000";
      }
      total += weight.number;
      variants.push(new Variant(given.keys[i], <u32>weight.number));
    }
    if (total == 0) return "the weights of the variants are all 0";
    this.variants = variants;
    return "";
  }

  /** Sets rules from a list in the order of priority; answers what is wrong, or nothing. */
  setRules(given: Json): string {
    if (given.kind != Kind.List || given.items.length > MOST_RULES) return "rules is a list of at most 16 rules";
    const rules: Rule[] = [];
    for (let i = 0; i < given.items.length; i++) {
      const attribute = given.items[i].get("attribute");
      const values = given.items[i].get("in");
      const variant = given.items[i].get("variant");
      if (attribute === null || values === null || variant === null || given.items[i].keys.length != 3) {
        return "a rule has attribute, in and variant";
      }
      if (!named(attribute.text) || !named(variant.text) || values.kind != Kind.List || values.items.length == 0 || values.items.length > MOST_VALUES) {
        return "a rule has an attribute, 1 to 64 values and a variant";
      }
      const texts: string[] = [];
      for (let j = 0; j < values.items.length; j++) {
        const value = values.items[j];
        if (value.kind != Kind.Text || value.text.length > 128) return "a rule's values are texts of at most 128 characters";
        texts.push(value.text);
      }
      rules.push(new Rule(attribute.text, texts, variant.text));
    }
    this.rules = rules;
    return "";
  }

  write(out: Writer): void {
    out.text(this.key);
    out.text(this.salt);
    out.text(this.off);
    out.u8((this.on ? 1 : 0) | (this.archived ? 2 : 0));
    out.u32(this.rollout);
    out.u64(this.version);
    out.u32(this.variants.length);
    for (let i = 0; i < this.variants.length; i++) {
      out.text(this.variants[i].name);
      out.u32(this.variants[i].weight);
    }
    out.u32(this.rules.length);
    for (let i = 0; i < this.rules.length; i++) {
      out.text(this.rules[i].attribute);
      out.text(this.rules[i].variant);
      out.u32(this.rules[i].values.length);
      for (let j = 0; j < this.rules[i].values.length; j++) out.text(this.rules[i].values[j]);
    }
    out.u32(this.audit.length);
    for (let i = 0; i < this.audit.length; i++) {
      const audit = this.audit[i];
      out.u64(audit.version);
      out.u64(audit.index);
      out.u64(audit.timeMs);
      out.text(audit.by);
      out.text(audit.reason);
      out.text(audit.change);
    }
  }

  static read(input: Reader): Flag {
    const flag = new Flag(input.text(512), input.text(512));
    flag.off = input.text(512);
    const bits = input.u8();
    flag.on = (bits & 1) != 0;
    flag.archived = (bits & 2) != 0;
    flag.rollout = input.u32();
    flag.version = input.u64();
    flag.variants = [];
    let total: u64 = 0;
    for (let left = count(input, MOST_VARIANTS); left > 0 && input.good; left--) {
      const variant = new Variant(input.text(512), input.u32());
      total += variant.weight;
      flag.variants.push(variant);
    }
    for (let left = count(input, MOST_RULES); left > 0 && input.good; left--) {
      const attribute = input.text(512);
      const variant = input.text(512);
      const values: string[] = [];
      for (let more = count(input, MOST_VALUES); more > 0 && input.good; more--) values.push(input.text(1024));
      flag.rules.push(new Rule(attribute, values, variant));
    }
    for (let left = count(input, MOST_AUDIT); left > 0 && input.good; left--) {
      flag.audit.push(new Audit(input.u64(), input.u64(), input.u64(), input.text(1024), input.text(4096), input.text(1 << 20)));
    }
    flag.measure();
    if (bits > 3 || flag.rollout > ALL || total == 0) input.fail("the snapshot has a wrong flag");
    return flag;
  }
}

function count(input: Reader, most: u32): u32 {
  const number = input.u32();
  if (number > most) input.fail("the snapshot has a list that is too long");
  return input.good ? number : 0;
}

function field(out: string, name: string, before: string, after: string): string {
  if (before == after) return out;
  return out + (out.length > 0 ? "," : "") + '"' + name + '":[' + before + "," + after + "]";
}

export function named(text: string): bool {
  return text.length > 0 && text.length <= 64;
}

/** FNV-1a of 64 bits over purpose/salt/subject, then mixed, so that similar subjects lie far apart. */
function bucket(purpose: string, salt: string, subject: string): u64 {
  const bytes = utf8(purpose + "/" + salt + "/" + subject);
  let hash: u64 = 0xcbf29ce484222325;
  for (let i = 0; i < bytes.length; i++) hash = (hash ^ <u64>bytes[i]) * 0x100000001b3;
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
  hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53;
  return hash ^ (hash >> 33);
}
