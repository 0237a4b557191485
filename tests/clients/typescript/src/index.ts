// A client for raft-host clusters: `Client` is where to begin.

export { type Answer, type Applied, Rejected, Trapped } from "./answers.js";
export { Client, type ClientOptions, type QueryOptions, type Timeouts } from "./client.js";
export {
  ClusterRestored,
  Code,
  type Effect,
  type Exceeded,
  type Leader,
  NoSuchGroup,
  OtherCluster,
  RaftHostError,
  SessionExpired,
  TooLarge,
  UnknownMethod,
} from "./errors.js";
export type { Session } from "./session.js";
export type { StreamResult } from "./stream.js";
