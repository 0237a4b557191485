import assert from "node:assert/strict";
import test from "node:test";
import { load } from "./host.mjs";

const module = new URL("../{{ident}}.wasm", import.meta.url);

test("numbers add up", () => {
  const node = load(module);
  assert.equal(node.apply("5").text, "5");
  assert.equal(node.apply("-3").text, "2");
  assert.equal(node.query("").text, "2");
});

test("a rejected command changes nothing", () => {
  const node = load(module);
  node.apply("7");
  for (const wrong of ["", "five", "+5", "5 ", "--5", "1234567890123456789"]) {
    const result = node.apply(wrong);
    assert.equal(result.status, "rejected", wrong);
    assert.match(result.text, /a decimal number/);
  }
  assert.equal(node.query("").text, "7");
});

test("a snapshot carries the sum", () => {
  const node = load(module);
  node.apply("-41");
  const copy = node.renew();
  assert.equal(copy.query("").text, "-41");
});

test("a wrong snapshot is rejected", () => {
  const good = load(module).snapshot();
  const longer = new Uint8Array([...good, 0]);
  for (const wrong of [new Uint8Array(0), good.slice(0, 11), longer]) {
    assert.equal(load(module).restore(wrong).status, "rejected");
  }
});
