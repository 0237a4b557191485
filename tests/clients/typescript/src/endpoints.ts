// Addresses of nodes, one of which is in use until it fails.

import * as grpc from "@grpc/grpc-js";

/** Answers may be as long as the limit `output_max_bytes`, of which gRPC's libraries know nothing. */
const MAX_ANSWER_BYTES = 256 << 20;

const OPTIONS: grpc.ChannelOptions = {
  "grpc.max_receive_message_length": MAX_ANSWER_BYTES,
  "grpc.max_send_message_length": -1,
  // A new channel is a new attempt, not the end of another one's pause.
  "grpc.use_local_subchannel_pool": 1,
  // TCP goes straight to the node.
  "grpc.enable_http_proxy": 0,
};

/** No connection could be made, so nothing was sent. */
export class NotConnected extends Error {}

/** One address and the connection to it, made when it is needed. */
export class Endpoint {
  #connection: Promise<grpc.Client> | undefined;

  constructor(readonly address: string) {}

  /** A connection that was there a moment ago. Rejects with `NotConnected`. */
  connected(timeoutMs: number): Promise<grpc.Client> {
    if (this.#connection === undefined) {
      const made = connect(this.address, timeoutMs);
      made.catch(() => this.#forget(made));
      this.#connection = made;
    }
    return this.#connection;
  }

  /** The connection is lost: the next request needs a new one. */
  async broke(client: grpc.Client): Promise<void> {
    const current = this.#connection;
    if (current !== undefined && (await current.catch(() => undefined)) === client) {
      this.#forget(current);
      // Closing waits for the calls that still go on over it.
      client.close();
    }
  }

  /** Ends the connection. */
  async close(): Promise<void> {
    const current = this.#connection;
    this.#connection = undefined;
    (await current?.catch(() => undefined))?.close();
  }

  #forget(connection: Promise<grpc.Client>): void {
    if (this.#connection === connection) {
      this.#connection = undefined;
    }
  }
}

/** Waits until the connection is there: only so is it sure that nothing was sent if it is not. */
function connect(address: string, timeoutMs: number): Promise<grpc.Client> {
  const client = new grpc.Client(address, grpc.credentials.createInsecure(), OPTIONS);
  const channel = client.getChannel();
  const deadline = Date.now() + timeoutMs;
  return new Promise((resolve, reject) => {
    const look = (late?: Error): void => {
      const state = channel.getConnectivityState(true);
      if (state === grpc.connectivityState.READY) {
        resolve(client);
      } else if (late !== undefined || state === grpc.connectivityState.TRANSIENT_FAILURE) {
        client.close();
        reject(new NotConnected(`cannot connect to ${address}`));
      } else {
        channel.watchConnectivityState(state, deadline, look);
      }
    };
    look();
  });
}

/** All addresses of a cluster. */
export class Endpoints {
  readonly #all: Endpoint[];
  readonly #usable: Endpoint[];

  constructor(addresses: readonly string[]) {
    if (addresses.length === 0) {
      throw new TypeError("a client needs the address of a node");
    }
    this.#all = addresses.map((address) => new Endpoint(address));
    this.#usable = [...this.#all];
  }

  /** The one to use. */
  current(): Endpoint {
    return this.#usable[0] as Endpoint;
  }

  /** Turns to the next one, unless somebody did so already. */
  failed(endpoint: Endpoint): void {
    if (this.#usable[0] === endpoint) {
      this.#usable.push(this.#usable.shift() as Endpoint);
    }
  }

  /** Leaves an address of another cluster alone; false: it is the last one. */
  strange(endpoint: Endpoint): boolean {
    const at = this.#usable.indexOf(endpoint);
    if (at === 0 && this.#usable.length === 1) {
      return false;
    }
    if (at >= 0) {
      this.#usable.splice(at, 1);
    }
    return true;
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    await Promise.all(this.#all.map((endpoint) => endpoint.close()));
  }
}
