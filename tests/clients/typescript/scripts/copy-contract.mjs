// The contract is read when the client starts: what is installed has a copy beside the code.
import { cpSync } from "node:fs";
import { fileURLToPath } from "node:url";

const from = fileURLToPath(new URL("../../../../proto/raft_host/v1", import.meta.url));
const to = fileURLToPath(new URL("../dist/proto/raft_host/v1", import.meta.url));
cpSync(from, to, { recursive: true });
