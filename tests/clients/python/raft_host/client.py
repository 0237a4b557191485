"""The client: attempts, addresses, and the cluster that it belongs to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc

from raft_host import answers, stream
from raft_host.answers import Answer, Applied
from raft_host.endpoints import Endpoint, Endpoints, NotConnected
from raft_host.errors import EFFECT_KEY, Effect, Facts, error, facts_of_call, is_strange
from raft_host.retry import Attempts, shortest_attempt
from raft_host.session import Session
from raft_host.v1 import admin_pb2, admin_pb2_grpc, client_pb2, client_pb2_grpc

CLUSTER_KEY = "raft-host-cluster"


class Consistency(Enum):
    """What a query sees."""

    #: Every command that was acknowledged before it was sent.
    LINEARIZABLE = client_pb2.CONSISTENCY_LINEARIZABLE
    #: What the asked node has applied.
    STALE = client_pb2.CONSISTENCY_STALE


@dataclass(frozen=True)
class Timeouts:
    """In seconds."""

    #: For a call with all its attempts.
    call: float = 30.0
    #: For one attempt.
    attempt: float = 5.0
    #: For a connection.
    connect: float = 2.0


class Client:
    """Speaks to one cluster through any of its nodes. All methods may be called from any thread."""

    def __init__(
        self,
        endpoints: Sequence[str],
        cluster_id: str | None = None,
        group: str = "",
        timeouts: Timeouts = Timeouts(),
    ) -> None:
        """`endpoints`: HOST:PORT. `cluster_id`: 32 hexadecimal digits; else the first node that
        answers says which cluster it is from then on. `group`: empty for the main one."""
        self.group = group
        self.timeouts = timeouts
        self._endpoints = Endpoints(endpoints)
        self._cluster_id = cluster_id
        self._learning = threading.Lock()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections. Sessions are not closed."""
        self._endpoints.close()

    def cluster_id(self) -> str:
        """The cluster that this client belongs to, in hexadecimal digits."""
        with self._learning:
            if self._cluster_id is None:
                request = client_pb2.ClusterRequest()
                response = self._attempts(_client("Cluster"), lambda: request, True, ())
                self._cluster_id = response.cluster_id.hex()
            return self._cluster_id

    def apply(self, command: bytes) -> Applied:
        """Applies a command, tried again only while it surely had no effect. Raises
        `RaftHostError`, and `Rejected` or `Trapped` if that is what the state machine did."""
        request = client_pb2.ApplyRequest(group=self.group, command=command)
        return answers.applied(self.call(_client("Apply"), lambda: request, False))

    def query(
        self,
        query: bytes,
        consistency: Consistency = Consistency.LINEARIZABLE,
        min_index: int = 0,
        max_staleness: float | None = None,
    ) -> Answer:
        """Asks the state machine. `min_index`: the answer reflects this entry of the log at least.
        `max_staleness`: seconds, for `Consistency.STALE`."""
        staleness = None if max_staleness is None else round(max_staleness * 1000)
        request = client_pb2.QueryRequest(
            group=self.group,
            query=query,
            consistency=consistency.value,
            min_index=min_index,
            max_staleness_ms=staleness,
        )
        return answers.answer(self.call(_client("Query"), lambda: request, True))

    def open_session(
        self, ttl: float | None = None, keep_alive: bool = True, ordered: bool = False
    ) -> Session:
        """A session for commands that are executed exactly once. `ttl`: how long it lives unused,
        in seconds; None: as long as the cluster likes. `ordered`: they are executed in the order
        in which `Session.apply` was called."""
        ttl_ms = 0 if ttl is None else round(ttl * 1000)
        request = client_pb2.OpenSessionRequest(group=self.group, ttl_ms=ttl_ms, ordered=ordered)
        opened = self.call(_client("OpenSession"), lambda: request, True)
        if ordered and not opened.ordered:
            words = "the cluster runs a version of raft-host that knows no ordered sessions"
            raise error(Facts(grpc.StatusCode.UNIMPLEMENTED, words, Effect.NONE))
        return Session(self, opened, keep_alive)

    def apply_stream(
        self, commands: Iterable[bytes], window: int = 1024
    ) -> Iterator[stream.StreamResult]:
        """Applies many commands over one stream, at most `window` at a time, each once at most.
        Results come in any order; their tags count the commands from 0 on."""
        metadata = ((CLUSTER_KEY, self.cluster_id()),)
        endpoint = self._endpoints.current()
        try:
            stub = client_pb2_grpc.ClientStub(endpoint.channel(self.timeouts.connect))
        except NotConnected as failed:
            self._endpoints.failed(endpoint)
            raise error(_not_connected(failed)) from None
        return stream.run(stub, metadata, self.group, self.timeouts.call, commands, window)

    def status(self) -> admin_pb2.StatusResponse:
        """The view of the node in use."""
        request = admin_pb2.StatusRequest(groups=[self.group] if self.group else [])
        response: admin_pb2.StatusResponse = self.call(_admin("Status"), lambda: request, True)
        return response

    def members(self, linearizable: bool = False) -> admin_pb2.MembersResponse:
        """The group's members."""
        request = admin_pb2.MembersRequest(group=self.group, linearizable=linearizable)
        response: admin_pb2.MembersResponse = self.call(_admin("Members"), lambda: request, True)
        return response

    def modules(self, linearizable: bool = False) -> admin_pb2.ModulesResponse:
        """The group's modules and the history of activations."""
        request = admin_pb2.ModulesRequest(group=self.group, linearizable=linearizable)
        response: admin_pb2.ModulesResponse = self.call(_admin("Modules"), lambda: request, True)
        return response

    def limits(self, linearizable: bool = False) -> admin_pb2.LimitsResponse:
        """Budgets of the state machine, and the engine that runs it."""
        request = admin_pb2.LimitsRequest(group=self.group, linearizable=linearizable)
        response: admin_pb2.LimitsResponse = self.call(_admin("Limits"), lambda: request, True)
        return response

    def call(
        self, method: Callable[[grpc.Channel], Any], make: Callable[[], Any], repeatable: bool
    ) -> Any:
        """Any unary method by the rules of this client. `make` makes the request of each attempt;
        `repeatable`: it may be sent again whatever became of it."""
        metadata = ((CLUSTER_KEY, self.cluster_id()),)
        return self._attempts(method, make, repeatable, metadata)

    def _attempts(
        self,
        method: Callable[[grpc.Channel], Any],
        make: Callable[[], Any],
        repeatable: bool,
        metadata: tuple[tuple[str, str], ...],
    ) -> Any:
        deadline = time.monotonic() + self.timeouts.call
        latest = deadline - shortest_attempt(self.timeouts.call)
        attempts = Attempts(repeatable)
        while True:
            endpoint = self._endpoints.current()
            left = max(deadline - time.monotonic(), 0.001)
            result = self._attempt(endpoint, method, make(), left, metadata)
            if not isinstance(result, Facts):
                return result
            pause = attempts.failed(result)
            strange = is_strange(result)
            last = strange and not self._endpoints.strange(endpoint)
            if pause is None or last or time.monotonic() + pause > latest:
                raise error(result, attempts.effect)
            self._endpoints.failed(endpoint)
            time.sleep(pause)

    def _attempt(
        self,
        endpoint: Endpoint,
        method: Callable[[grpc.Channel], Any],
        request: Any,
        left: float,
        metadata: tuple[tuple[str, str], ...],
    ) -> Any:
        """The response, or the facts of the failure."""
        try:
            channel = endpoint.channel(min(self.timeouts.connect, left))
        except NotConnected as failed:
            return _not_connected(failed)
        try:
            timeout = min(self.timeouts.attempt, left)
            return method(channel)(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as failed:
            facts = facts_of_call(failed)
            trailers: Any = getattr(failed, "trailing_metadata", lambda: None)() or ()
            if all(item[0] != EFFECT_KEY for item in trailers):
                # No node said it: the connection is suspect.
                endpoint.broke(channel)
            return facts


def _not_connected(failed: NotConnected) -> Facts:
    return Facts(grpc.StatusCode.UNAVAILABLE, str(failed), Effect.NONE)


def _client(name: str) -> Callable[[grpc.Channel], Any]:
    return lambda channel: getattr(client_pb2_grpc.ClientStub(channel), name)


def _admin(name: str) -> Callable[[grpc.Channel], Any]:
    return lambda channel: getattr(admin_pb2_grpc.AdminStub(channel), name)
