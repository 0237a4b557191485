// Which failures are followed by another attempt, and after what pause.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Endpoints } from "../src/endpoints.js";
import { ClusterRestored, Code, OtherCluster, bare, errorOf } from "../src/errors.js";
import { Attempts, shortestAttempt } from "../src/retry.js";

test("codes that time does not mend end it", () => {
  for (const code of [Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.INTERNAL, Code.OUT_OF_RANGE]) {
    assert.equal(new Attempts(true).failed(bare(code, "", "none")), undefined);
  }
});

test("an unknown effect forbids all that follows", () => {
  const attempts = new Attempts(false);
  assert.notEqual(attempts.failed(bare(Code.UNAVAILABLE, "", "none")), undefined);
  assert.equal(attempts.failed(bare(Code.UNAVAILABLE, "", "unknown")), undefined);
  assert.equal(attempts.failed(bare(Code.UNAVAILABLE, "", "none")), undefined);
  assert.equal(attempts.effect, "unknown");
});

test("what may be repeated goes on and remembers", () => {
  const attempts = new Attempts(true);
  assert.notEqual(attempts.failed(bare(Code.DEADLINE_EXCEEDED, "", "unknown")), undefined);
  assert.equal(attempts.failed(bare(Code.NOT_FOUND, "", "none")), undefined);
  assert.equal(attempts.effect, "unknown");
});

test("pauses double up to a second", () => {
  for (const part of [0, 1]) {
    const attempts = new Attempts(true, () => part);
    for (const longest of [20, 40, 80, 160, 320, 640, 1000, 1000]) {
      const pause = attempts.failed(bare(Code.UNAVAILABLE, "", "none"));
      assert.equal(pause, (longest * (1 + part)) / 2);
    }
  }
});

test("the pause of the node is kept", () => {
  const busy = { ...bare(Code.RESOURCE_EXHAUSTED, "", "none"), retryAfterMs: 3000 };
  assert.equal(new Attempts(false).failed(busy), 3000);
});

test("no attempt begins that could hardly end in time", () => {
  assert.equal(shortestAttempt(10_000), 500);
  assert.equal(shortestAttempt(400), 100);
});

test("an address of another cluster is no reason to give up", () => {
  for (const [reason, kind] of [
    ["REASON_OTHER_CLUSTER", OtherCluster],
    ["REASON_CLUSTER_RESTORED", ClusterRestored],
  ] as const) {
    const other = { ...bare(Code.FAILED_PRECONDITION, "", "none"), reason };
    assert.notEqual(new Attempts(false).failed(other), undefined);
    assert.equal(errorOf(other).constructor, kind);
  }
});

test("whoever fails second does not skip an address", () => {
  const endpoints = new Endpoints(["a:1", "b:1", "c:1"]);
  const first = endpoints.current();
  endpoints.failed(first);
  endpoints.failed(first);
  assert.equal(endpoints.current().address, "b:1");
});

test("the last address stays though it is strange", () => {
  const endpoints = new Endpoints(["a:1", "b:1"]);
  assert.equal(endpoints.strange(endpoints.current()), true);
  assert.equal(endpoints.current().address, "b:1");
  assert.equal(endpoints.strange(endpoints.current()), false);
  assert.throws(() => new Endpoints([]), TypeError);
});
