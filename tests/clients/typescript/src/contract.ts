// The contract, read from its files: no code is generated, and none can be out of step.

import { fileURLToPath } from "node:url";

import type * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const FOLDER = fileURLToPath(new URL("../proto", import.meta.url));
const FILES = ["client", "admin", "common", "errors"].map((name) => `raft_host/v1/${name}.proto`);

const definition = loader.loadSync(FILES, {
  includeDirs: [FOLDER],
  // 64 bits do not fit into a number; enums by name, of a newer version by number.
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});

/** A method as grpc-js wants it. */
export type Method = Pick<
  grpc.MethodDefinition<object, object>,
  "path" | "requestSerialize" | "responseDeserialize"
>;

/** A method of `raft_host.v1.Client` or `raft_host.v1.Admin`. */
export function method(service: "Client" | "Admin", name: string): Method {
  const found = (definition[`raft_host.v1.${service}`] as grpc.ServiceDefinition)[name];
  if (found === undefined) {
    throw new Error(`the contract has no ${service}.${name}`);
  }
  return found;
}

const root = new protobuf.Root();
root.resolvePath = (_, target) => `${FOLDER}/${target}`;
root.loadSync(FILES);
// As google/rpc/status.proto has it; gRPC's libraries do not bring it along.
protobuf.parse(
  `syntax = "proto3"; package google.rpc;
   message Packed { string type_url = 1; bytes value = 2; }
   message Status { int32 code = 1; string message = 2; repeated Packed details = 3; }`,
  root,
);

const STATUS = root.lookupType("google.rpc.Status");
const DETAIL = root.lookupType("raft_host.v1.ErrorDetail");

/** `ErrorDetail` as it comes: 64 bits as text, absent what was not said. */
export interface Detail {
  reason: string | number;
  effect: string | number;
  retryAfterMs?: string;
  leader?: { nodeId: string; address: string; term: string } | null;
  index: string;
  exceeded?: { limit: string; value: string; max: string } | null;
}

/** The `ErrorDetail` in a `google.rpc.Status`; undefined if none can be read. */
export function decodeDetail(status: Uint8Array): Detail | undefined {
  try {
    const { details } = STATUS.decode(status) as unknown as {
      details: { typeUrl: string; value: Uint8Array }[];
    };
    const packed = details.find((one) => one.typeUrl.endsWith("/raft_host.v1.ErrorDetail"));
    if (packed === undefined) {
      return undefined;
    }
    const options = { longs: String, enums: String, defaults: true };
    return DETAIL.toObject(DETAIL.decode(packed.value), options) as Detail;
  } catch {
    return undefined;
  }
}

/** The other way, for tests. */
export function encodeDetail(detail: Partial<Detail>): Uint8Array {
  const value = DETAIL.encode(DETAIL.fromObject(detail)).finish();
  const typeUrl = "type.googleapis.com/raft_host.v1.ErrorDetail";
  return STATUS.encode(STATUS.fromObject({ details: [{ typeUrl, value }] })).finish();
}
