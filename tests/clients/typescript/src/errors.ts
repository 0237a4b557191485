// Why a call failed, in types: what the trailers say, or what must be assumed without them.

import { status as Code, type Metadata } from "@grpc/grpc-js";

import { type Detail, decodeDetail } from "./contract.js";

export { Code };

export const EFFECT_KEY = "raft-host-effect";
const DETAILS_KEY = "grpc-status-details-bin";

/**
 * What became of a request that failed. `none`: it surely did not happen and will not. `unknown`: it
 * may have happened, or may still happen.
 */
export type Effect = "none" | "unknown";

/** Who leads the group, as far as the node that answered knew. */
export interface Leader {
  nodeId: bigint;
  address: string;
  term: bigint;
}

/** A limit, what was asked for, and the most that is allowed. */
export interface Exceeded {
  limit: string;
  value: bigint;
  max: bigint;
}

/** What one failed attempt said. */
export interface Facts {
  code: Code;
  message: string;
  effect: Effect;
  /** `REASON_...`; the number of one that this client does not know. */
  reason: string;
  retryAfterMs?: number | undefined;
  leader?: Leader | undefined;
  /** What the failure is about, in the log; 0: no entry. */
  index: bigint;
  exceeded?: Exceeded | undefined;
}

/** A call that failed. `effect` covers all attempts: `none` only if each had none. */
export class RaftHostError extends Error {
  readonly code: Code;
  readonly reason: string;
  readonly effect: Effect;
  readonly retryAfterMs: number | undefined;
  readonly leader: Leader | undefined;
  readonly index: bigint;
  readonly exceeded: Exceeded | undefined;

  constructor(facts: Facts, effect: Effect = facts.effect) {
    super(`${facts.message} (${facts.reason}, effect: ${effect})`);
    this.name = new.target.name;
    this.code = facts.code;
    this.reason = facts.reason;
    this.effect = effect;
    this.retryAfterMs = facts.retryAfterMs;
    this.leader = facts.leader;
    this.index = facts.index;
    this.exceeded = facts.exceeded;
  }
}

/** No address belongs to the cluster that the request is meant for. */
export class OtherCluster extends RaftHostError {}
/**
 * The cluster was restored from a backup of the one that the request is meant for, as of entry `index`: begin
 * anew, with its id and a new session.
 */
export class ClusterRestored extends OtherCluster {}
/** The cluster has no group of that name. */
export class NoSuchGroup extends RaftHostError {}
/** Longer than allowed; `exceeded` names the limit. */
export class TooLarge extends RaftHostError {}
/** The method is not there, or not in the node's version. */
export class UnknownMethod extends RaftHostError {}
/** The session is gone; of its commands without an answer nothing is known any more. */
export class SessionExpired extends RaftHostError {}

const CLASSES = new Map<string, typeof RaftHostError>([
  ["REASON_OTHER_CLUSTER", OtherCluster],
  ["REASON_CLUSTER_RESTORED", ClusterRestored],
  ["REASON_NO_SUCH_GROUP", NoSuchGroup],
  ["REASON_TOO_LARGE", TooLarge],
  ["REASON_UNKNOWN_METHOD", UnknownMethod],
  ["REASON_SESSION_EXPIRED", SessionExpired],
]);

/** Whether a node of another cluster has answered, which did nothing of it. */
export function isStrange(facts: Facts): boolean {
  return facts.reason === "REASON_OTHER_CLUSTER" || facts.reason === "REASON_CLUSTER_RESTORED";
}

/** The error for what an attempt said; `effect`: that of all attempts. */
export function errorOf(facts: Facts, effect?: Effect): RaftHostError {
  return new (CLASSES.get(facts.reason) ?? RaftHostError)(facts, effect);
}

/** Facts without a detail. */
export function bare(code: Code, message: string, effect: Effect): Facts {
  return { code, message, effect, reason: "REASON_UNSPECIFIED", index: 0n };
}

/** What the end of a call says, of which only the code is certain to be there. */
export function factsOf(code: Code, message: string, trailers: Metadata): Facts {
  const encoded = trailers.get(DETAILS_KEY)[0];
  const detail = Buffer.isBuffer(encoded) ? decodeDetail(encoded) : undefined;
  if (detail !== undefined) {
    return fromDetail(code, message, detail);
  }
  return bare(code, message, trailers.get(EFFECT_KEY)[0] === "none" ? "none" : "unknown");
}

/** What an `ErrorDetail` says. */
export function fromDetail(code: Code, message: string, detail: Detail): Facts {
  const { leader, exceeded, retryAfterMs } = detail;
  return {
    code,
    message,
    effect: detail.effect === "EFFECT_NONE" ? "none" : "unknown",
    reason: String(detail.reason),
    retryAfterMs: retryAfterMs === undefined ? undefined : Number(retryAfterMs),
    leader: leader
      ? { nodeId: BigInt(leader.nodeId), address: leader.address, term: BigInt(leader.term) }
      : undefined,
    index: BigInt(detail.index),
    exceeded: exceeded
      ? { limit: exceeded.limit, value: BigInt(exceeded.value), max: BigInt(exceeded.max) }
      : undefined,
  };
}
