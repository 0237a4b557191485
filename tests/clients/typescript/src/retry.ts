// Whether and when a failed attempt is followed by another one.

import { Code, type Effect, type Facts, isStrange } from "./errors.js";

/** After other codes the same request is refused again. */
const RETRYABLE: ReadonlySet<Code> = new Set([
  Code.UNAVAILABLE,
  Code.RESOURCE_EXHAUSTED,
  Code.ABORTED,
  Code.DEADLINE_EXCEEDED,
  Code.CANCELLED,
  Code.UNKNOWN,
]);

const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 1000;
const SHORTEST_ATTEMPT_MS = 500;

/**
 * The least time that another attempt is worth beginning with, of a request that has `callMs` in all: its answer
 * might come too late otherwise, and what surely had no effect would end as of unknown effect.
 */
export function shortestAttempt(callMs: number): number {
  return Math.min(SHORTEST_ATTEMPT_MS, callMs / 4);
}

/** The attempts at one request: what they did so far, and what may follow. */
export class Attempts {
  /** Of all attempts together. */
  effect: Effect = "none";
  #pauseMs = FIRST_PAUSE_MS;

  /** `repeatable`: trying again is harmless whatever became of earlier attempts. */
  constructor(
    private readonly repeatable: boolean,
    private readonly draw: () => number = Math.random,
  ) {}

  /** Milliseconds to wait before the next attempt; undefined: there must not be one. */
  failed(facts: Facts): number | undefined {
    if (facts.effect === "unknown") {
      this.effect = "unknown";
    }
    // Another address may still be right.
    const elsewhere = isStrange(facts);
    if (!RETRYABLE.has(facts.code) && !elsewhere) {
      return undefined;
    }
    if (!this.repeatable && this.effect === "unknown") {
      return undefined;
    }
    const pauseMs = this.#pauseMs / 2 + (this.draw() * this.#pauseMs) / 2;
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
    return Math.max(pauseMs, facts.retryAfterMs ?? 0);
  }
}
