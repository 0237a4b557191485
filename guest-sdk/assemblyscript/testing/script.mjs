// Plays a conformance script (guest-sdk/conformance/FORMAT.md) in the small host: straight, or renewed before every step.
// Fuel and memory are not compared here: `raft-host check --script` does that.
import { readFileSync } from "node:fs";
import { load } from "./host.mjs";

/** Throws an Error that names the line of the first expectation that does not hold. */
export function play(module, script, { renewing = false } = {}) {
  let node = load(module);
  let saved;
  let result;
  let events;
  const lines = readFileSync(script, "utf8").split("\n").map((line) => line.replace(/\r$/, ""));
  const settle = () => {
    if (events && !same(events, result.events.map(({ topic, text }) => `${topic} ${text}`))) throw new Error("other events");
    events = undefined;
    if (!result || result.checked) return;
    if (result.status !== "ok") throw new Error(`${result.status}: ${result.text}`);
  };
  for (const [at, line] of lines.entries()) {
    if (line === "" || line.startsWith("#")) continue;
    const space = line.indexOf(" ");
    const word = space < 0 ? line : line.slice(0, space);
    const rest = space < 0 ? "" : line.slice(space + 1);
    try {
      const input = inputOf(word, rest);
      if (input === undefined && !["renew", "advance", "actor", "check", "state-version"].includes(word)) {
        if (word.startsWith("event")) {
          result.checked ||= word === "event-none";
          (events ??= []).push(...(word === "event" ? [told(rest, node)] : []));
        } else {
          expect(word, told(rest, node), result);
        }
        if (word === "event") result.status === "ok" && (result.checked = true);
        continue;
      }
      settle();
      result = undefined;
      if (word === "renew" || renewing) node = node.renew();
      if (word === "advance") node.pendingMs = node.pendingMs + Number(rest);
      if (word === "actor") node.actor = rest;
      if (word === "check" || word === "state-version") {
        result = word === "check" ? node.check() : node.stateVersion();
        continue;
      }
      if (input === undefined) continue;
      if (word.startsWith("apply")) {
        node.advance(node.pendingMs);
        node.pendingMs = 0;
        saved = node.snapshot();
        result = node.apply(input);
      } else if (word === "classify") {
        saved = node.snapshot();
        result = node.classify(input);
      } else if (word === "restores") {
        saved = node.snapshot();
        result = node.restores(input);
      } else {
        saved = node.snapshot();
        result = node.query(input);
      }
      if (result.status === "trapped") node = node.undone(saved);
    } catch (error) {
      throw new Error(`line ${at + 1}, ${line.slice(0, 80)}: ${error.message}`);
    }
  }
  settle();
}

function told(text, node) {
  return text.replaceAll("${index}", node.index).replaceAll("${time_ms}", node.timeMs);
}

function inputOf(word, rest) {
  const [kind, form] = word.split("-");
  if (!["apply", "query", "classify", "restores"].includes(kind)) return undefined;
  if (form === "hex") return Buffer.from(rest, "hex");
  if (form !== "fill") return Buffer.from(rest);
  const [count, hex] = rest.split(" ");
  return Buffer.alloc(Number(count), Buffer.from(hex, "hex"));
}

function expect(word, rest, result) {
  const [kind, form] = word.split("-");
  result.checked = true;
  if (kind === "log") {
    const [level, ...text] = rest.split(" ");
    if (result.logs.some((line) => line.level === level && line.text.includes(text.join(" ")))) return;
    throw new Error("no such line was logged");
  }
  const met = kind === "answered" ? result.status !== "trapped" : result.status === kind;
  if (!met) throw new Error(`it was ${result.status}: ${result.text.slice(0, 200)}`);
  if (kind === "answered" || kind === "trapped" || form === "any") return;
  const good =
    form === "contains" ? result.text.includes(rest)
    : form === "length" ? result.bytes.length === Number(rest)
    : form === "hex" ? result.bytes.toString("hex") === rest.toLowerCase()
    : result.bytes.equals(Buffer.from(rest));
  if (!good) throw new Error(`it answered ${result.text.slice(0, 200)}`);
}

function same(a, b) {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
