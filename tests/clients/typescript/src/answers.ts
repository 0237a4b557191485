// What the state machine said.

/** The state machine said no and changed nothing. */
export class Rejected extends Error {
  constructor(
    readonly reason: Buffer,
    /** The entry of the log; of a query, the one that the answer reflects. */
    readonly index: bigint,
  ) {
    super(reason.toString());
    this.name = "Rejected";
  }
}

/** The state machine broke; its state is as if the request had never been. */
export class Trapped extends Error {
  constructor(
    /** `TRAP_KIND_...` */
    readonly kind: string,
    message: string,
    readonly index: bigint,
  ) {
    super(`${kind}: ${message}`);
    this.name = "Trapped";
  }
}

/** A command that was done. */
export interface Applied {
  output: Buffer;
  /** The entry of the log, and which of its commands it was. */
  index: bigint;
  ordinal: number;
  /** An earlier attempt had done it already; this is its answer. */
  duplicate: boolean;
  fuelUsed: bigint;
}

/** The answer of a query. */
export interface Answer {
  output: Buffer;
  /** It reflects all entries up to and including this one. */
  appliedIndex: bigint;
  /** How old it may be; undefined: the node does not know. */
  ageMs: number | undefined;
  fuelUsed: bigint;
}

interface Outcome {
  kind?: "ok" | "rejected" | "trapped";
  ok?: Buffer;
  rejected?: Buffer;
  trapped?: string | number;
  duplicate: boolean;
}

/** `ApplyResponse` as it comes. */
export interface ApplyResponse {
  outcome: Outcome | null;
  position: { index: string; ordinal: number } | null;
  fuelUsed: string;
  trapMessage: string;
}

/** `QueryResponse` as it comes. */
export interface QueryResponse {
  outcome: Outcome | null;
  appliedIndex: string;
  fuelUsed: string;
  trapMessage: string;
  ageMs?: string;
}

/** Throws `Rejected` and `Trapped`. */
export function applied(response: ApplyResponse): Applied {
  const index = BigInt(response.position?.index ?? 0);
  return {
    output: output(response.outcome, response.trapMessage, index),
    index,
    ordinal: response.position?.ordinal ?? 0,
    duplicate: response.outcome?.duplicate ?? false,
    fuelUsed: BigInt(response.fuelUsed),
  };
}

/** Throws `Rejected` and `Trapped`. */
export function answer(response: QueryResponse): Answer {
  const appliedIndex = BigInt(response.appliedIndex);
  return {
    output: output(response.outcome, response.trapMessage, appliedIndex),
    appliedIndex,
    ageMs: response.ageMs === undefined ? undefined : Number(response.ageMs),
    fuelUsed: BigInt(response.fuelUsed),
  };
}

function output(outcome: Outcome | null, trapMessage: string, index: bigint): Buffer {
  switch (outcome?.kind) {
    case "ok":
      return outcome.ok ?? Buffer.alloc(0);
    case "rejected":
      throw new Rejected(outcome.rejected ?? Buffer.alloc(0), index);
    default:
      throw new Trapped(String(outcome?.trapped ?? "TRAP_KIND_UNSPECIFIED"), trapMessage, index);
  }
}
