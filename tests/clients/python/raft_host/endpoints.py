"""Addresses of nodes, one of which is in use until it fails."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

import grpc

#: Answers may be as long as the limit `output_max_bytes`, of which gRPC's libraries know nothing.
MAX_ANSWER_BYTES = 256 << 20

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.max_send_message_length", -1),
    # A new channel is a new attempt, not the end of another one's pause.
    ("grpc.use_local_subchannel_pool", 1),
    # TCP goes straight to the node.
    ("grpc.enable_http_proxy", 0),
)


class NotConnected(Exception):
    """No connection could be made, so nothing was sent."""


class Endpoint:
    """One address and the connection to it, made when it is needed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None

    def channel(self, timeout: float) -> grpc.Channel:
        """A channel that was connected a moment ago."""
        with self._lock:
            if self._channel is None:
                self._channel = _connect(self.address, timeout)
            return self._channel

    def broke(self, channel: grpc.Channel) -> None:
        """The connection is lost: the next request needs a new one."""
        with self._lock:
            if self._channel is channel:
                self._channel = None

    def close(self) -> None:
        """Ends the connection and what goes on over it."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
                self._channel = None


def _connect(address: str, timeout: float) -> grpc.Channel:
    """Waits until the connection is there: only so is it sure that nothing was sent if it is not."""
    channel = grpc.insecure_channel(address, options=_OPTIONS)
    states: queue.Queue[grpc.ChannelConnectivity] = queue.Queue()
    notice = states.put
    channel.subscribe(notice, try_to_connect=True)
    try:
        while True:
            state = states.get(timeout=timeout)
            if state is grpc.ChannelConnectivity.READY:
                return channel
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                break
    except queue.Empty:
        pass
    finally:
        channel.unsubscribe(notice)
    channel.close()
    raise NotConnected(f"cannot connect to {address}")


class Endpoints:
    """All addresses of a cluster."""

    def __init__(self, addresses: Sequence[str]) -> None:
        if not addresses:
            raise ValueError("a client needs the address of a node")
        self._all = [Endpoint(address) for address in addresses]
        self._usable = list(self._all)
        self._lock = threading.Lock()

    def current(self) -> Endpoint:
        """The one to use."""
        with self._lock:
            return self._usable[0]

    def failed(self, endpoint: Endpoint) -> None:
        """Turns to the next one, unless somebody did so already."""
        with self._lock:
            if self._usable[0] is endpoint:
                self._usable.append(self._usable.pop(0))

    def strange(self, endpoint: Endpoint) -> bool:
        """Leaves an address of another cluster alone; False: it is the last one."""
        with self._lock:
            if self._usable == [endpoint]:
                return False
            if endpoint in self._usable:
                self._usable.remove(endpoint)
            return True

    def close(self) -> None:
        """Ends all connections."""
        for endpoint in self._all:
            endpoint.close()
