import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { load } from "../testing/host.mjs";
import { play } from "../testing/script.mjs";

const here = (path) => new URL(path, import.meta.url);
const probe = here("../probe/probe.wasm");

for (const script of ["probe", "any"]) {
  for (const renewing of [false, true]) {
    test(`the probe passes ${script}.script${renewing ? ", renewed before every step" : ""}`, () => {
      play(probe, here(`../../conformance/${script}.script`), { renewing });
    });
  }
}

test("a failed assertion is logged with its place, then traps", () => {
  const result = load(probe).apply("trap");
  assert.equal(result.status, "trapped");
  assert.equal(result.logs[0].level, "error");
  assert.match(result.logs[0].text, /^abort: asked to trap at assembly\/index\.ts:\d+$/);
});

test("a million commands do not make memory grow", () => {
  const node = load(probe);
  for (let i = 0; i < 10_000; i++) node.apply("set some state that is replaced");
  const before = node.memoryBytes;
  for (let i = 0; i < 1_000_000; i++) node.apply("set some state that is replaced");
  assert.ok(node.memoryBytes <= before, `${before} bytes before, ${node.memoryBytes} after`);
});

test("a wrong snapshot is rejected, and its length is checked before memory is taken", () => {
  const good = Buffer.from("50524231" + "03000000" + "616263", "hex");
  for (const hex of ["", "5052", "58524231" + "00000000", "50524231" + "ffffffff", "50524231" + "00000001"]) {
    const node = load(probe);
    const before = node.memoryBytes;
    assert.equal(node.restore(Buffer.from(hex, "hex")).status, "rejected", hex);
    assert.equal(node.memoryBytes, before);
  }
  assert.equal(load(probe).restore(good).status, "ok");
  assert.match(load(probe).restore(Buffer.concat([good, good])).text, /11 trailing bytes/);
});

test("the memory of another module is adopted, and nothing outside of it", () => {
  const module = new Uint8Array(32).fill(7);
  const short = load(probe).adopt(module, new TextEncoder().encode("too short"));
  assert.deepEqual([short.status, short.text], ["rejected", "the old memory ends before 16 bytes at 0x0"]);
  const node = load(probe);
  const memory = new TextEncoder().encode("a memory of 20 bytes");
  assert.equal(node.adopt(module, memory, [{ type: 1, bits: (5n << 64n) | 0x109n }]).status, "ok");
  const global = Buffer.concat([Buffer.from([1, 9, 1]), Buffer.alloc(6), Buffer.from([5]), Buffer.alloc(7)]);
  const none = Buffer.concat([Buffer.from([255]), Buffer.alloc(16)]);
  const size = Buffer.from([20, 0, 0, 0, 0, 0, 0, 0]);
  const expected = Buffer.concat([module, size, memory.subarray(0, 16), global, none]);
  assert.deepEqual(node.query("get").bytes, expected);
  assert.deepEqual(node.renew().query("get").bytes, expected);
});

test("the template's host is this one", () => {
  const copy = readFileSync(here("../../../host/templates/assemblyscript/test/host.mjs"), "utf8");
  assert.equal(copy, readFileSync(here("../testing/host.mjs"), "utf8"));
});
