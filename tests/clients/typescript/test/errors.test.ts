// What is made of trailers, whoever sent them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Metadata } from "@grpc/grpc-js";

import { encodeDetail } from "../src/contract.js";
import { Code, errorOf, factsOf } from "../src/errors.js";
import { TooLarge } from "../src/index.js";

function trailers(entries: Record<string, string | Uint8Array>): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(entries)) {
    metadata.set(key, typeof value === "string" ? value : Buffer.from(value));
  }
  return metadata;
}

test("the detail says everything", () => {
  const detail = encodeDetail({
    reason: "REASON_TOO_LARGE",
    effect: "EFFECT_NONE",
    retryAfterMs: "1500",
    index: "7",
    exceeded: { limit: "input_max_bytes", value: "9007199254740993", max: "8" },
  });
  const said = trailers({ "grpc-status-details-bin": detail, "raft-host-effect": "none" });
  const failure = errorOf(factsOf(Code.INVALID_ARGUMENT, "too long", said));
  assert(failure instanceof TooLarge);
  assert.equal(failure.effect, "none");
  assert.equal(failure.retryAfterMs, 1500);
  assert.equal(failure.index, 7n);
  const exceeded = { limit: "input_max_bytes", value: 9007199254740993n, max: 8n };
  assert.deepEqual(failure.exceeded, exceeded);
  assert.equal(failure.leader, undefined);
  assert.match(String(failure), /TooLarge.*REASON_TOO_LARGE/);
});

test("without a detail the trailer counts", () => {
  const broken = Uint8Array.of(0xff, 0xff);
  for (const [entries, effect] of [
    [{ "raft-host-effect": "none" }, "none"],
    [{ "raft-host-effect": "unknown" }, "unknown"],
    [{ "raft-host-effect": "some day" }, "unknown"],
    [{}, "unknown"],
    [{ "grpc-status-details-bin": broken }, "unknown"],
    [{ "grpc-status-details-bin": broken, "raft-host-effect": "none" }, "none"],
  ] as [Record<string, string | Uint8Array>, string][]) {
    assert.equal(factsOf(Code.UNAVAILABLE, "", trailers(entries)).effect, effect);
  }
});

test("an absent pause is not a pause of nothing", () => {
  const said = trailers({ "grpc-status-details-bin": encodeDetail({ effect: "EFFECT_NONE" }) });
  assert.equal(factsOf(Code.UNAVAILABLE, "", said).retryAfterMs, undefined);
});

test("a reason of a newer node is kept as a number", () => {
  const said = trailers({ "grpc-status-details-bin": encodeDetail({ reason: 1000 }) });
  const failure = errorOf(factsOf(Code.UNAVAILABLE, "new", said));
  assert.equal(failure.reason, "1000");
});
