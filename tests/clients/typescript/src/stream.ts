// Many commands over one stream.

import type * as grpc from "@grpc/grpc-js";

import { type Applied, type ApplyResponse, applied } from "./answers.js";
import type { Detail, Method } from "./contract.js";
import { Code, type Facts, bare, errorOf, factsOf, fromDetail } from "./errors.js";

/** Commands in one message. */
const BATCH = 64;

/** What became of one command. */
export class StreamResult {
  constructor(
    /** Which command it was, from 0 on. */
    readonly tag: number,
    private readonly said: ApplyResponse | Facts,
  ) {}

  /** What the state machine said; throws what a single call would have thrown. */
  applied(): Applied {
    if ("code" in this.said) {
      throw errorOf(this.said);
    }
    return applied(this.said);
  }
}

interface Message {
  results: {
    tag: string;
    result: "response" | "error";
    response: ApplyResponse;
    error: { code: number; message: string; detail: Detail | null };
  }[];
}

/** How a stream is used. */
export interface StreamOptions {
  group: string;
  timeoutMs: number;
  /** Commands that may be without an answer at a time. */
  window: number;
}

/**
 * Yields a result for every command that was sent. When the stream breaks, what has no answer may
 * have happened: those results say so.
 */
export async function* run(
  client: grpc.Client,
  { path, requestSerialize, responseDeserialize }: Method,
  metadata: grpc.Metadata,
  commands: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  { group, timeoutMs, window }: StreamOptions,
): AsyncGenerator<StreamResult, void, undefined> {
  if (window < 1) {
    throw new RangeError("the window must have room for a command");
  }
  const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata);
  const waiting = new Set<number>();
  let ended = false;
  // What was written waits in memory.
  let full = false;
  let wake = (): void => {};
  // Whoever reads hears of it; after the end nobody reads.
  call.on("error", () => {});
  call.on("drain", () => {
    full = false;
    wake();
  });

  const send = async (): Promise<void> => {
    let tag = 0;
    let batch: object[] = [];
    const flush = (): void => {
      if (batch.length > 0 && !ended) {
        full = !call.write({ commands: batch });
      }
      batch = [];
    };
    for await (const command of commands) {
      while ((full || waiting.size >= window) && !ended) {
        await new Promise<void>((resolve) => (wake = resolve));
      }
      if (ended) {
        return;
      }
      waiting.add(tag);
      batch.push({ tag, request: { group, command }, timeoutMs });
      tag += 1;
      if (batch.length >= BATCH) {
        flush();
      } else if (batch.length === 1) {
        // With what else comes by then.
        setImmediate(flush);
      }
    }
    flush();
    call.end();
  };

  // An error of the caller's own commands is thrown to the caller.
  const sending = send().catch((error: unknown) => {
    call.cancel();
    return { error };
  });
  let broke = bare(Code.UNAVAILABLE, "the stream ended without an answer", "unknown");
  try {
    for await (const message of call as AsyncIterable<Message>) {
      for (const one of message.results) {
        const tag = Number(one.tag);
        if (waiting.delete(tag)) {
          wake();
          yield new StreamResult(tag, one.result === "response" ? one.response : failure(one.error));
        }
      }
    }
  } catch (error) {
    const failed = error as grpc.ServiceError;
    if (failed.metadata === undefined) {
      throw error;
    }
    // Whatever the end says is about the call, not about commands that were sent before.
    broke = { ...factsOf(failed.code, failed.details, failed.metadata), effect: "unknown" };
  } finally {
    ended = true;
    wake();
    call.cancel();
  }
  const own = await sending;
  if (own !== undefined) {
    throw own.error;
  }
  for (const tag of waiting) {
    yield new StreamResult(tag, broke);
  }
}

function failure({ code, message, detail }: Message["results"][number]["error"]): Facts {
  return detail === null ? bare(code, message, "unknown") : fromDetail(code, message, detail);
}
