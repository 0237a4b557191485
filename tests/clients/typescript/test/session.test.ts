// Sequence numbers and places.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Numbers, Places } from "../src/session.js";

test("only what has all answers below it is acknowledged", () => {
  const numbers = new Numbers();
  assert.deepEqual([1, 2, 3, 4], [0, 0, 0, 0].map(() => numbers.take()));
  for (const [number, acknowledged] of [[2, 0], [4, 0], [1, 2], [3, 4]] as [number, number][]) {
    numbers.done(number);
    assert.equal(numbers.acknowledged, acknowledged);
  }
  assert.equal(numbers.take(), 5);
});

test("who finds no place waits for one", async () => {
  const places = new Places(1);
  const order: string[] = [];
  await places.take();
  const second = places.take().then(() => order.push("second"));
  const third = places.take().then(() => order.push("third"));
  await new Promise(setImmediate);
  assert.deepEqual(order, []);
  places.leave();
  await second;
  assert.deepEqual(order, ["second"]);
  places.leave();
  await third;
});
