// The client: attempts, addresses, and the cluster that it belongs to.

import { setTimeout as sleep } from "node:timers/promises";

import * as grpc from "@grpc/grpc-js";

import {
  type Answer,
  type Applied,
  type ApplyResponse,
  type QueryResponse,
  answer,
  applied,
} from "./answers.js";
import { type Method, method } from "./contract.js";
import { type Endpoint, Endpoints, NotConnected } from "./endpoints.js";
import { Code, EFFECT_KEY, type Facts, bare, errorOf, factsOf, isStrange } from "./errors.js";
import { Attempts, shortestAttempt } from "./retry.js";
import { type Opened, Session } from "./session.js";
import { type StreamResult, run } from "./stream.js";

const CLUSTER_KEY = "raft-host-cluster";

/** In milliseconds. */
export interface Timeouts {
  /** For a call with all its attempts. */
  callMs: number;
  /** For one attempt. */
  attemptMs: number;
  /** For a connection. */
  connectMs: number;
}

/** How a client is made. */
export interface ClientOptions {
  /** 32 hexadecimal digits; else the first node that answers says which cluster it is. */
  clusterId?: string;
  /** Empty for the main one. */
  group?: string;
  timeouts?: Partial<Timeouts>;
}

/** What a query must see. */
export interface QueryOptions {
  /**
   * `linearizable` (the default): every command that was acknowledged before it was sent. `stale`: what
   * the asked node has applied.
   */
  consistency?: "linearizable" | "stale";
  /** The answer reflects this entry of the log at least. */
  minIndex?: bigint;
  /** For `stale`. */
  maxStalenessMs?: number;
}

/** Speaks to one cluster through any of its nodes. */
export class Client {
  readonly group: string;
  readonly timeouts: Timeouts;
  readonly #endpoints: Endpoints;
  #clusterId: Promise<string> | undefined;

  /** `endpoints`: HOST:PORT. */
  constructor(endpoints: readonly string[], options: ClientOptions = {}) {
    this.group = options.group ?? "";
    this.timeouts = { callMs: 30_000, attemptMs: 5000, connectMs: 2000, ...options.timeouts };
    this.#endpoints = new Endpoints(endpoints);
    if (options.clusterId !== undefined) {
      this.#clusterId = Promise.resolve(options.clusterId);
    }
  }

  /** Ends all connections. Sessions are not closed. */
  async close(): Promise<void> {
    await this.#endpoints.close();
  }

  /** The cluster that this client belongs to, in hexadecimal digits. */
  clusterId(): Promise<string> {
    if (this.#clusterId === undefined) {
      const asked = this.#attempts<{ clusterId: Buffer }>(
        method("Client", "Cluster"),
        () => ({}),
        true,
        new grpc.Metadata(),
      );
      const learnt = asked.then((response) => response.clusterId.toString("hex"));
      // Who comes later asks again.
      learnt.catch(() => (this.#clusterId = undefined));
      this.#clusterId = learnt;
    }
    return this.#clusterId;
  }

  /**
   * Applies a command, tried again only while it surely had no effect. Throws `RaftHostError`, and
   * `Rejected` or `Trapped` if that is what the state machine did.
   */
  async apply(command: Uint8Array): Promise<Applied> {
    const request = { group: this.group, command };
    return applied(await this.call<ApplyResponse>(method("Client", "Apply"), () => request, false));
  }

  /** Asks the state machine. */
  async query(query: Uint8Array, options: QueryOptions = {}): Promise<Answer> {
    const { consistency = "linearizable", minIndex = 0n, maxStalenessMs } = options;
    const request = {
      group: this.group,
      query,
      consistency: consistency === "stale" ? "CONSISTENCY_STALE" : "CONSISTENCY_LINEARIZABLE",
      minIndex: minIndex.toString(),
      ...(maxStalenessMs === undefined ? {} : { maxStalenessMs }),
    };
    return answer(await this.call<QueryResponse>(method("Client", "Query"), () => request, true));
  }

  /**
   * A session for commands that are executed exactly once. `ttlMs`: how long it lives unused; 0: as long
   * as the cluster likes. `ordered`: they are executed in the order in which `Session.apply` was called.
   */
  async openSession(
    options: { ttlMs?: number; keepAlive?: boolean; ordered?: boolean } = {},
  ): Promise<Session> {
    const { ttlMs = 0, keepAlive = true, ordered = false } = options;
    const request = { group: this.group, ttlMs, ordered };
    const opened = await this.call<Opened>(method("Client", "OpenSession"), () => request, true);
    if (ordered && !opened.ordered) {
      const words = "the cluster runs a version of raft-host that knows no ordered sessions";
      throw errorOf(bare(Code.UNIMPLEMENTED, words, "none"));
    }
    return new Session(this, opened, keepAlive);
  }

  /**
   * Applies many commands over one stream, at most `window` at a time, each once at most. Results come in
   * any order; their tags count the commands from 0 on.
   */
  async *applyStream(
    commands: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
    window = 1024,
  ): AsyncGenerator<StreamResult, void, undefined> {
    const metadata = await this.#metadata();
    const endpoint = this.#endpoints.current();
    const connected = await this.#connected(endpoint, this.timeouts.connectMs);
    if (!(connected instanceof grpc.Client)) {
      this.#endpoints.failed(endpoint);
      throw errorOf(connected);
    }
    const options = { group: this.group, timeoutMs: this.timeouts.callMs, window };
    yield* run(connected, method("Client", "ApplyStream"), metadata, commands, options);
  }

  /** The view of the node in use, as the contract's `StatusResponse`. */
  status(): Promise<{ clusterId: Buffer; nodeId: string; version: string; groups: object[] }> {
    const groups = this.group === "" ? [] : [this.group];
    return this.call(method("Admin", "Status"), () => ({ groups }), true);
  }

  /** The group's members. */
  members(linearizable = false): Promise<{ members: { nodeId: string; address: string }[] }> {
    return this.#about("Members", linearizable);
  }

  /** The group's modules and the history of activations. */
  modules(linearizable = false): Promise<{ modules: { label: string; active: boolean }[] }> {
    return this.#about("Modules", linearizable);
  }

  /** Budgets of the state machine, by name. */
  limits(linearizable = false): Promise<{ limits: Record<string, string | number> }> {
    return this.#about("Limits", linearizable);
  }

  /**
   * Any unary method by the rules of this client. `make` makes the request of each attempt;
   * `repeatable`: it may be sent again whatever became of it.
   */
  async call<Response>(what: Method, make: () => object, repeatable: boolean): Promise<Response> {
    return this.#attempts(what, make, repeatable, await this.#metadata());
  }

  #about<Response>(name: string, linearizable: boolean): Promise<Response> {
    return this.call(method("Admin", name), () => ({ group: this.group, linearizable }), true);
  }

  async #metadata(): Promise<grpc.Metadata> {
    const metadata = new grpc.Metadata();
    metadata.set(CLUSTER_KEY, await this.clusterId());
    return metadata;
  }

  async #attempts<Response>(
    what: Method,
    make: () => object,
    repeatable: boolean,
    metadata: grpc.Metadata,
  ): Promise<Response> {
    const deadline = Date.now() + this.timeouts.callMs;
    const latest = deadline - shortestAttempt(this.timeouts.callMs);
    const attempts = new Attempts(repeatable);
    for (;;) {
      const endpoint = this.#endpoints.current();
      const leftMs = Math.max(deadline - Date.now(), 1);
      const result = await this.#attempt<Response>(endpoint, what, make(), leftMs, metadata);
      if ("response" in result) {
        return result.response;
      }
      const pauseMs = attempts.failed(result);
      const strange = isStrange(result);
      const last = strange && !this.#endpoints.strange(endpoint);
      if (pauseMs === undefined || last || Date.now() + pauseMs > latest) {
        throw errorOf(result, attempts.effect);
      }
      this.#endpoints.failed(endpoint);
      await sleep(pauseMs);
    }
  }

  async #attempt<Response>(
    endpoint: Endpoint,
    what: Method,
    request: object,
    leftMs: number,
    metadata: grpc.Metadata,
  ): Promise<{ response: Response } | Facts> {
    const client = await this.#connected(endpoint, Math.min(this.timeouts.connectMs, leftMs));
    if (!(client instanceof grpc.Client)) {
      return client;
    }
    const { path, requestSerialize, responseDeserialize } = what;
    const options = { deadline: Date.now() + Math.min(this.timeouts.attemptMs, leftMs) };
    return new Promise((resolve) => {
      const ended = (failed: grpc.ServiceError | null, response?: object): void => {
        if (failed === null) {
          resolve({ response: response as Response });
          return;
        }
        if (failed.metadata.get(EFFECT_KEY).length === 0) {
          // No node said it: the connection is suspect.
          void endpoint.broke(client);
        }
        resolve(factsOf(failed.code, failed.details, failed.metadata));
      };
      client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        metadata,
        options,
        ended,
      );
    });
  }

  async #connected(endpoint: Endpoint, timeoutMs: number): Promise<grpc.Client | Facts> {
    try {
      return await endpoint.connected(timeoutMs);
    } catch (error) {
      if (error instanceof NotConnected) {
        return bare(Code.UNAVAILABLE, error.message, "none");
      }
      throw error;
    }
  }
}
