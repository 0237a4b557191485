// Against a cluster that runs the counter: everything the client promises, through the death of a
// leader, which whoever runs this kills when it reads `writing`.
//
// Usage: node whole_system.js HOST:PORT...

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import * as grpc from "@grpc/grpc-js";
import protobuf from "protobufjs";

import { method } from "../src/contract.js";
import {
  type Applied,
  Client,
  Code,
  NoSuchGroup,
  OtherCluster,
  RaftHostError,
  Rejected,
  SessionExpired,
  TooLarge,
  UnknownMethod,
} from "../src/index.js";
import type { Opened } from "../src/session.js";

const WRITERS = 16;
const PATIENT = { callMs: 120_000 };

const bytes = (text: string): Buffer => Buffer.from(text);
const number = (output: Buffer): number => Number(output.toString());

async function main(addresses: string[]): Promise<void> {
  const client = new Client(addresses, { timeouts: PATIENT });
  await describesItself(client, addresses);
  const done = await exactlyOnceThroughTheDeathOfALeader(client);
  await readsItsOwnWritesEverywhere(client, addresses);
  await streams(client, done);
  await fullSessionsAreRelieved(client, addresses);
  await sessionsEnd(client);
  await orderedSessionsKeepTheirOrder(client);
  await errorsAreTyped(client, addresses);
  await knowsItsHealth(addresses);
  await client.close();
  console.log("done");
}

async function describesItself(client: Client, addresses: string[]): Promise<void> {
  assert.equal((await client.status()).clusterId.toString("hex"), await client.clusterId());
  const members = (await client.members(true)).members.map(({ address }) => address);
  assert.deepEqual(members.sort(), [...addresses].sort());
  assert.deepEqual((await client.modules()).modules.map(({ active }) => active), [true]);
  assert(Number((await client.limits()).limits["inputMaxBytes"]) > 0);
}

/**
 * Adds 1 until well after the leader's death. Each answer is the sum so far, so that a command that was
 * executed twice leaves a gap, and one that was lost makes the sum too small.
 */
async function exactlyOnceThroughTheDeathOfALeader(client: Client): Promise<number> {
  const session = await client.openSession();
  const answers: Applied[] = [];
  let stop = false;
  const write = async (): Promise<void> => {
    while (!stop) {
      answers.push(await session.apply(bytes("1")));
    }
  };
  const writers = Array.from({ length: WRITERS }, write);
  answers.push(await session.apply(bytes("1")));
  console.log("writing");
  // Says that the leader is dead, and then that it is there again.
  let told = 0;
  const said = createInterface({ input: process.stdin });
  for await (const _ of said) {
    answers.push(await session.apply(bytes("1")));
    told += 1;
    if (told === 2) {
      break;
    }
  }
  said.close();
  assert.equal(told, 2, "nobody killed the leader");
  stop = true;
  await Promise.all(writers);
  await session.close();

  const sums = answers.map(({ output }) => number(output)).sort((a, b) => a - b);
  assert.deepEqual(sums, answers.map((_, at) => at + 1), "a command was executed twice, or not");
  const positions = new Set(answers.map(({ index, ordinal }) => `${index}.${ordinal}`));
  assert.equal(positions.size, answers.length, "two commands have one position");
  assert.equal(number((await client.query(bytes(""))).output), answers.length);
  console.log(`${answers.length} commands were executed exactly once`);
  return answers.length;
}

async function readsItsOwnWritesEverywhere(client: Client, addresses: string[]): Promise<void> {
  const clusterId = await client.clusterId();
  for (const address of addresses) {
    const { index, output } = await client.apply(bytes("0"));
    const one = new Client([address], { clusterId, timeouts: PATIENT });
    const answer = await one.query(bytes(""), { consistency: "stale", minIndex: index });
    assert(answer.appliedIndex >= index);
    assert.deepEqual(answer.output, output);
    const fresh = await one.query(bytes(""), { consistency: "stale", maxStalenessMs: 60_000 });
    assert((fresh.ageMs ?? 0) <= 60_000);
    await one.close();
  }
}

async function streams(client: Client, before: number): Promise<void> {
  const sums = new Map<number, number>();
  const ones = Array.from({ length: 500 }, () => bytes("1"));
  for await (const result of client.applyStream(ones, 100)) {
    sums.set(result.tag, number(result.applied().output));
  }
  assert.deepEqual([...sums.keys()].sort((a, b) => a - b), ones.map((_, at) => at));
  const found = [...sums.values()].sort((a, b) => a - b);
  assert.deepEqual(found, ones.map((_, at) => before + 1 + at));
  let rejected = 0;
  for await (const result of client.applyStream([bytes("0"), bytes("no number")])) {
    if (result.tag === 0) {
      assert.equal(number(result.applied().output), before + 500);
    } else {
      assert.throws(() => result.applied(), Rejected);
      rejected += 1;
    }
  }
  assert.equal(rejected, 1);

  // Whoever leaves a stream early ends it.
  let taken = 0;
  for await (const result of client.applyStream(endless(), 10)) {
    result.applied();
    taken += 1;
    if (taken === 50) {
      break;
    }
  }
  assert.equal(taken, 50);
}

function* endless(): Generator<Uint8Array> {
  for (;;) {
    yield bytes("0");
  }
}

/** A session that keeps all that it may takes nothing until the client acknowledges. */
async function fullSessionsAreRelieved(client: Client, addresses: string[]): Promise<void> {
  const opened = method("Client", "OpenSession");
  const { sessionId, responsesMax } = await client.call<Opened>(opened, () => ({}), true);
  const most = Number(responsesMax);
  let acknowledged = 0;
  const send = (by: Client, sequence: number): Promise<unknown> =>
    by.call(
      method("Client", "Apply"),
      () => ({ command: bytes("0"), session: { sessionId, sequence, acknowledged } }),
      true,
    );
  for (let first = 1; first <= most; first += 512) {
    const numbers = Array.from({ length: Math.min(512, most - first + 1) }, (_, at) => first + at);
    await Promise.all(numbers.map((sequence) => send(client, sequence)));
  }
  const clusterId = await client.clusterId();
  const hasty = new Client(addresses, { clusterId, timeouts: { callMs: 4000 } });
  const full = await failure(RaftHostError, send(hasty, most + 1));
  await hasty.close();
  assert.deepEqual(
    [full.reason, full.code, full.effect],
    ["REASON_SESSION_FULL", Code.RESOURCE_EXHAUSTED, "none"],
  );
  const waiting = send(client, most + 1);
  await sleep(100);
  acknowledged = most;
  await waiting;
  const late = await failure(RaftHostError, send(client, most));
  assert.deepEqual([late.reason, late.code], ["REASON_SEQUENCE_TOO_OLD", Code.ALREADY_EXISTS]);
}

async function sessionsEnd(client: Client): Promise<void> {
  const session = await client.openSession();
  await session.apply(bytes("0"));
  await session.close();
  const gone = await failure(SessionExpired, session.apply(bytes("0")));
  // Whether an earlier attempt was executed is no longer known, if there was one.
  assert.deepEqual([gone.code, gone.effect], [Code.NOT_FOUND, "unknown"]);
  await session.close();

  // One that nobody keeps expires by the log's clock, one that is kept does not.
  const kept = await client.openSession({ ttlMs: 1000 });
  const forgotten = await client.openSession({ ttlMs: 1000, keepAlive: false });
  const ends = Date.now() + forgotten.ttlMs * 3;
  while (Date.now() < ends) {
    await client.apply(bytes("0"));
    await sleep(100);
  }
  await failure(SessionExpired, forgotten.apply(bytes("0")));
  await kept.apply(bytes("0"));
  await kept.close();
}

/** Each answer is the sum so far, which tells what was executed before. */
async function orderedSessionsKeepTheirOrder(client: Client): Promise<void> {
  const before = number((await client.query(bytes(""))).output);
  const session = await client.openSession({ ordered: true });
  assert(session.ordered);
  const send = (sequence: number): Promise<{ outcome: { ok: Buffer } }> =>
    client.call(
      method("Client", "Apply"),
      () => ({
        command: bytes("1" + "0".repeat(sequence)),
        session: { sessionId: session.id, sequence, acknowledged: 0 },
      }),
      true,
    );
  const answers = await Promise.all([4, 3, 2, 1].map(send));
  const sums = answers.map(({ outcome }) => number(outcome.ok) - before);
  assert.deepEqual(sums, [11110, 1110, 110, 10]);
  await session.close();

  const other = await client.openSession({ ordered: true });
  const first = number((await other.apply(bytes("1"))).output);
  const longest = Number((await client.limits()).limits["inputMaxBytes"]);
  const all = [1, 2, 3, 4].map(() => other.apply(bytes("1")));
  await failure(TooLarge, other.apply(Buffer.alloc(longest + 1, "1")));
  all.push(other.apply(bytes("1")));
  const outputs = (await Promise.all(all)).map(({ output }) => number(output) - first);
  assert.deepEqual(outputs, [1, 2, 3, 4, 5]);
  await other.close();
  await failure(SessionExpired, other.apply(bytes("1")));
  const gone = await failure(RaftHostError, other.apply(bytes("1")));
  assert.deepEqual([gone.code, gone.effect], [Code.FAILED_PRECONDITION, "none"]);
}

async function errorsAreTyped(client: Client, addresses: string[]): Promise<void> {
  const stranger = new Client(addresses, { clusterId: "ab".repeat(16) });
  const other = await failure(OtherCluster, stranger.apply(bytes("1")));
  assert.deepEqual([other.reason, other.effect], ["REASON_OTHER_CLUSTER", "none"]);
  await stranger.close();

  const lost = new Client(addresses, { group: "nowhere" });
  for (const call of [
    () => lost.apply(bytes("1")),
    () => lost.query(bytes("")),
    () => lost.openSession(),
  ]) {
    const missing = await failure(NoSuchGroup, call());
    assert.deepEqual([missing.code, missing.effect], [Code.NOT_FOUND, "none"]);
  }
  await lost.close();

  const longest = Number((await client.limits()).limits["inputMaxBytes"]);
  const tooLarge = await failure(TooLarge, client.apply(Buffer.alloc(longest + 1, "1")));
  const exceeded = { limit: "input_max_bytes", value: BigInt(longest + 1), max: BigInt(longest) };
  assert.deepEqual(tooLarge.exceeded, exceeded);
  assert.equal(tooLarge.effect, "none");

  const guess = {
    path: "/raft_host.v1.Client/Guess",
    requestSerialize: () => Buffer.alloc(0),
    responseDeserialize: () => ({}),
  };
  const nothing = await failure(UnknownMethod, client.call(guess, () => ({}), true));
  assert.deepEqual([nothing.code, nothing.effect], [Code.UNIMPLEMENTED, "none"]);

  await failure(Rejected, client.apply(bytes("no number")));

  const nobody = new Client(["127.0.0.1:1"], { timeouts: { callMs: 500 } });
  const refused = await failure(RaftHostError, nobody.apply(bytes("1")));
  assert.deepEqual([refused.code, refused.effect], [Code.UNAVAILABLE, "none"]);
  await nobody.close();
}

async function knowsItsHealth(addresses: string[]): Promise<void> {
  const { root } = protobuf.parse(
    `syntax = "proto3"; package grpc.health.v1;
     message HealthCheckRequest { string service = 1; }
     message HealthCheckResponse { uint32 status = 1; }`,
  );
  const asked = root.lookupType("grpc.health.v1.HealthCheckRequest");
  const answered = root.lookupType("grpc.health.v1.HealthCheckResponse");
  for (const address of addresses) {
    const client = new grpc.Client(address, grpc.credentials.createInsecure());
    for (const service of ["", "raft_host.v1.Client", "raft_host.v1.Admin", "group/main"]) {
      const status = await new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          "/grpc.health.v1.Health/Check",
          (request: object) => Buffer.from(asked.encode(request).finish()),
          (response) => (answered.decode(response) as unknown as { status: number }).status,
          { service },
          new grpc.Metadata(),
          { deadline: Date.now() + 30_000 },
          (error, response) => (error === null ? resolve(response) : reject(error)),
        );
      });
      // SERVING
      assert.equal(status, 1, `${address} ${service}`);
    }
    client.close();
  }
}

/** The error that it ends with, which must be of that kind. */
async function failure<E>(
  kind: abstract new (...parts: never[]) => E,
  call: Promise<unknown>,
): Promise<E> {
  try {
    await call;
  } catch (error) {
    if (error instanceof kind) {
      return error;
    }
    throw error;
  }
  throw new assert.AssertionError({ message: `no ${kind.name}` });
}

await main(process.argv.slice(2));
