// Commands that are executed exactly once (Raft dissertation, section 6.3).

import { type Applied, type ApplyResponse, applied } from "./answers.js";
import type { Client } from "./client.js";
import { method } from "./contract.js";
import { bare, Code, RaftHostError, SessionExpired } from "./errors.js";

/** Sequence numbers that were given out, and up to which all have been answered. */
export class Numbers {
  /** All up to and including this one are done. */
  acknowledged = 0;
  #last = 0;
  /** Answered, and above `acknowledged`. */
  readonly #answered = new Set<number>();

  /** The next number. */
  take(): number {
    this.#last += 1;
    return this.#last;
  }

  /** The answer is here, or nobody waits for it any more. */
  done(number: number): void {
    this.#answered.add(number);
    while (this.#answered.delete(this.acknowledged + 1)) {
      this.acknowledged += 1;
    }
  }
}

/** So many at a time; the others wait in the order in which they came. */
export class Places {
  readonly #waiting: (() => void)[] = [];

  constructor(private free: number) {}

  async take(): Promise<void> {
    if (this.free > 0) {
      this.free -= 1;
    } else {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.free += 1;
    } else {
      next();
    }
  }
}

/** `OpenSessionResponse` as it comes. */
export interface Opened {
  sessionId: string;
  ttlMs: string;
  responsesMax: string;
  ordered: boolean;
}

/** Made by `Client.openSession`. A timer keeps it alive until it is closed. */
export class Session {
  readonly id: string;
  /** How long it lives unused. */
  readonly ttlMs: number;
  /** Commands are executed in the order of their numbers. */
  readonly ordered: boolean;
  /** A command of an ordered session has no answer, so that those behind it wait in vain. */
  #broken = false;
  readonly #numbers = new Numbers();
  readonly #places: Places;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly client: Client,
    opened: Opened,
    keepAlive: boolean,
  ) {
    this.id = opened.sessionId;
    this.ttlMs = Number(opened.ttlMs);
    this.ordered = opened.ordered;
    // More commands at a time would be refused while the oldest has no answer.
    this.#places = new Places(Math.max(Number(opened.responsesMax), 1));
    if (keepAlive) {
      this.#timer = setInterval(() => void this.#keepQuietly(), this.ttlMs / 3);
      this.#timer.unref();
    }
  }

  /**
   * Applies a command exactly once, however often it must be sent. Throws as `Client.apply` does;
   * `SessionExpired` if the session is gone. A command that was given up counts as answered: once
   * that is acknowledged, the cluster executes it no more. In an ordered session no later one is
   * executed then, save for those that were on their way.
   */
  async apply(command: Uint8Array): Promise<Applied> {
    await this.#places.take();
    try {
      if (this.#broken) {
        const words = "a command before it in its ordered session has no answer: open a new one";
        throw new RaftHostError(bare(Code.FAILED_PRECONDITION, words, "none"));
      }
      return applied(await this.#execute(command, this.#numbers.take()));
    } finally {
      this.#places.leave();
    }
  }

  async #execute(command: Uint8Array, sequence: number): Promise<ApplyResponse> {
    try {
      const response = await this.#send(command, sequence, false);
      this.#numbers.done(sequence);
      return response;
    } catch (error) {
      if (!this.ordered || (await this.#skipped(sequence, error))) {
        this.#numbers.done(sequence);
      } else {
        this.#broken = true;
      }
      throw error;
    }
  }

  /** Whether the failure is of no other command's concern: those behind it need not wait. */
  async #skipped(sequence: number, failed: unknown): Promise<boolean> {
    if (!(failed instanceof RaftHostError) || failed.code !== Code.INVALID_ARGUMENT) {
      return false;
    }
    try {
      await this.#send(new Uint8Array(), sequence, true);
      return true;
    } catch (error) {
      if (error instanceof RaftHostError) {
        return false;
      }
      throw error;
    }
  }

  #send(command: Uint8Array, sequence: number, skip: boolean): Promise<ApplyResponse> {
    // Number and command are those of the first attempt; what is acknowledged may be more.
    const request = (): object => ({
      group: this.client.group,
      command,
      session: { sessionId: this.id, sequence, acknowledged: this.#numbers.acknowledged, skip },
    });
    return this.client.call<ApplyResponse>(method("Client", "Apply"), request, true);
  }

  /** Tells the cluster that the session is in use. */
  async keep(): Promise<void> {
    const request = (): object => ({
      group: this.client.group,
      sessionId: this.id,
      acknowledged: this.#numbers.acknowledged,
    });
    await this.client.call(method("Client", "KeepSession"), request, true);
  }

  /** Has the cluster forget it. One that is gone already is no error. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    const request = { group: this.client.group, sessionId: this.id };
    try {
      await this.client.call(method("Client", "CloseSession"), () => request, true);
    } catch (error) {
      if (!(error instanceof SessionExpired)) {
        throw error;
      }
    }
  }

  async #keepQuietly(): Promise<void> {
    try {
      await this.keep();
    } catch (error) {
      if (error instanceof SessionExpired) {
        clearInterval(this.#timer);
      } else if (!(error instanceof RaftHostError)) {
        throw error;
      }
      // Whoever uses the session next learns what the matter is.
    }
  }
}
