import assert from "node:assert/strict";
import test from "node:test";
import { load } from "../../../guest-sdk/assemblyscript/testing/host.mjs";
import { play } from "../../../guest-sdk/assemblyscript/testing/script.mjs";

const module = new URL("../feature_flags.wasm", import.meta.url);
const apply = (node, request) => node.apply(JSON.stringify(request));
const ask = (node, request) => JSON.parse(node.query(JSON.stringify(request)).text);
const create = (node, flag, more) => assert.equal(apply(node, { op: "create", flag, by: "ann", ...more }).status, "ok");
const evaluate = (node, flag, subject, attributes) => ask(node, { op: "evaluate", flag, subject, attributes });

test("a new flag is off; on, it is on for everybody", () => {
  const node = load(module);
  create(node, "a");
  assert.deepEqual(evaluate(node, "a", "u1"), { flag: "a", value: false, variant: "off", reason: "off", version: 1 });
  apply(node, { op: "update", flag: "a", by: "ann", on: true });
  assert.deepEqual(evaluate(node, "a", "u1"), { flag: "a", value: true, variant: "on", reason: "split", version: 2 });
});

test("raising the roll-out only adds subjects, and hits the percentage", () => {
  const node = load(module);
  create(node, "a", { on: true, rollout: 0, variants: { red: 1, blue: 1 } });
  let seen = new Map();
  for (const rollout of [1, 1000, 2500, 5000, 10000]) {
    apply(node, { op: "update", flag: "a", by: "ann", rollout });
    const now = new Map();
    for (let i = 0; i < 2000; i++) {
      const { variant } = evaluate(node, "a", `user-${i}`);
      if (variant !== "off") now.set(i, variant);
    }
    for (const [i, variant] of seen) assert.equal(now.get(i), variant);
    assert.ok(Math.abs(now.size - rollout / 5) < 100, `${now.size} at ${rollout}`);
    seen = now;
  }
  const red = [...seen.values()].filter((variant) => variant === "red").length;
  assert.ok(Math.abs(red - 1000) < 120, `${red} red`);
});

test("rules go by priority and before the roll-out", () => {
  const node = load(module);
  const rules = [
    { attribute: "plan", in: ["free"], variant: "off" },
    { attribute: "country", in: ["at", "de"], variant: "on" },
  ];
  create(node, "a", { on: true, rollout: 0, rules });
  assert.equal(evaluate(node, "a", "u", { country: "de" }).reason, "rule");
  assert.equal(evaluate(node, "a", "u", { country: "de" }).value, true);
  assert.equal(evaluate(node, "a", "u", { country: "de", plan: "free" }).value, false);
  assert.equal(evaluate(node, "a", "u", { country: "fr" }).reason, "rollout");
});

test("a change that expects another version is rejected", () => {
  const node = load(module);
  create(node, "a");
  assert.match(apply(node, { op: "update", flag: "a", by: "bob", expect: 7, on: true }).text, /at version 1, not 7/);
  assert.equal(apply(node, { op: "update", flag: "a", by: "bob", expect: 1, on: true }).status, "ok");
});

test("the audit trail tells who, when, where and what, and is bounded", () => {
  const node = load(module);
  create(node, "a", { reason: "new page" });
  node.advance(500);
  const { events } = apply(node, { op: "update", flag: "a", by: "bob", on: true, reason: "go" });
  assert.equal(events[0].topic, "flag-changed");
  const [last] = ask(node, { op: "audit", flag: "a", limit: 1 });
  const index = Number(node.index);
  assert.deepEqual(last, { version: 2, index, time_ms: 1700000000500, by: "bob", reason: "go", change: { on: [false, true] } });
  for (let i = 0; i < 60; i++) apply(node, { op: "update", flag: "a", by: "bob", rollout: i });
  assert.equal(ask(node, { op: "audit", flag: "a", limit: 50 }).length, 50);
  assert.equal(ask(node, { op: "audit", flag: "a", before: 20, limit: 50 }).length, 7);
});

test("archived flags answer off, and only they can be deleted", () => {
  const node = load(module);
  create(node, "a", { on: true });
  assert.equal(apply(node, { op: "delete", flag: "a", by: "ann" }).status, "rejected");
  apply(node, { op: "archive", flag: "a", by: "ann" });
  assert.equal(evaluate(node, "a", "u").reason, "archived");
  assert.equal(apply(node, { op: "update", flag: "a", by: "ann", on: false }).status, "rejected");
  assert.equal(apply(node, { op: "delete", flag: "a", by: "ann" }).status, "ok");
  assert.equal(ask(node, { op: "stats" }).flags, 0);
});

test("lists are sorted, by prefix and in pages", () => {
  const node = load(module);
  for (const flag of ["web.b", "app.a", "web.a", "web.c"]) create(node, flag, { on: true });
  const names = (request) => ask(node, request).map(({ flag }) => flag);
  assert.deepEqual(names({ op: "list" }), ["app.a", "web.a", "web.b", "web.c"]);
  assert.deepEqual(names({ op: "list", prefix: "web.", limit: 2 }), ["web.a", "web.b"]);
  assert.deepEqual(names({ op: "list", prefix: "web.", after: "web.b" }), ["web.c"]);
  assert.deepEqual(names({ op: "evaluate-all", subject: "u", prefix: "app" }), ["app.a"]);
});

test("a snapshot carries everything and does not depend on history", () => {
  const one = load(module);
  const rules = [{ attribute: "x", in: ["1"], variant: "red" }];
  create(one, "b", { variants: { red: 1, blue: 3 }, rules, salt: "é" });
  apply(one, { op: "archive", flag: "b", by: "ann" });
  const two = one.renew();
  assert.deepEqual(two.snapshot(), one.snapshot());
  assert.deepEqual(ask(two, { op: "get", flag: "b" }), ask(one, { op: "get", flag: "b" }));
  const bytes = one.snapshot();
  for (let length = 0; length < bytes.length; length++) {
    assert.equal(load(module).restore(bytes.slice(0, length)).status, "rejected");
  }
});

test("what is wrong is rejected and changes nothing", () => {
  const node = load(module);
  create(node, "a");
  const before = node.snapshot();
  const wrong = [
    "", "{", "[]", "null", '{"op":1}', '{"op":"no"}', "[".repeat(60000), '{"a":'.repeat(10000), '{"op":"create","op":"create"}',
    '{"op":"update","flag":"a","by":"x","on":1}', '{"op":"update","flag":"a","by":"x","rollout":10001}', '{"op":"update","flag":"a","by":"x","rollout":1.5}',
    '{"op":"update","flag":"a","by":"x","typo":1}', '{"op":"update","flag":"a","by":"x","variants":{"r":0}}', '{"op":"update","flag":"a","by":"x"}',
    '{"op":"update","flag":"a","by":"x","rules":[{"attribute":"a","in":["b"],"variant":"none"}]}', '{"op":"update","flag":"a","on":true}',
    '{"op":"create","flag":"A","by":"x"}', '{"op":"create","flag":"a","by":"x"}', '"\\ud800"', '"\\u12"', '{"op":"get"} x', "x".repeat(1 << 20),
  ];
  for (const text of wrong) assert.equal(node.apply(text).status, "rejected", text.slice(0, 80));
  assert.deepEqual(node.snapshot(), before);
});

for (const script of ["../check.script", "../../../guest-sdk/conformance/any.script"]) {
  test(`it passes ${script}`, () => {
    for (const renewing of [false, true]) play(module, new URL(script, import.meta.url), { renewing });
  });
}
