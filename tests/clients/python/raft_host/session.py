"""Commands that are executed exactly once (Raft dissertation, section 6.3)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc

from raft_host import answers
from raft_host.answers import Applied
from raft_host.errors import Effect, Facts, RaftHostError, SessionExpired
from raft_host.v1 import client_pb2, client_pb2_grpc

if TYPE_CHECKING:
    from raft_host.client import Client


class Numbers:
    """Sequence numbers that were given out, and up to which all have been answered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._acknowledged = 0
        #: Answered, and above `_acknowledged`.
        self._answered: set[int] = set()

    def take(self) -> int:
        """The next number."""
        with self._lock:
            self._last += 1
            return self._last

    def done(self, number: int) -> None:
        """The answer is here, or nobody waits for it any more."""
        with self._lock:
            self._answered.add(number)
            while self._acknowledged + 1 in self._answered:
                self._acknowledged += 1
                self._answered.remove(self._acknowledged)

    def acknowledged(self) -> int:
        """The number up to which all are done."""
        with self._lock:
            return self._acknowledged


class Session:
    """Made by `Client.open_session`. May be used from many threads; a thread of its own keeps it
    alive until it is closed."""

    def __init__(self, client: Client, opened: Any, keep_alive: bool) -> None:
        self.id: int = opened.session_id
        #: How long it lives unused, in seconds.
        self.ttl: float = opened.ttl_ms / 1000
        #: Commands are executed in the order of their numbers.
        self.ordered: bool = opened.ordered
        #: A command of an ordered session has no answer, so that those behind it wait in vain.
        self._broken = False
        self._client = client
        self._numbers = Numbers()
        self._closing = threading.Event()
        # More commands at a time would be refused while the oldest has no answer.
        self._places = threading.BoundedSemaphore(max(opened.responses_max, 1))
        self._keeper: threading.Thread | None = None
        if keep_alive:
            self._keeper = threading.Thread(
                target=self._keep, name=f"raft-host-session-{self.id}", daemon=True
            )
            self._keeper.start()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def apply(self, command: bytes) -> Applied:
        """Applies a command exactly once, however often it must be sent. Raises as
        `Client.apply` does; `SessionExpired` if the session is gone. A command that was given
        up counts as answered: once that is acknowledged, the cluster executes it no more. In an
        ordered session no later one is executed then, save for those that were on their way."""
        with self._places:
            if self._broken:
                words = "a command before it in its ordered session has no answer: open a new one"
                code = grpc.StatusCode.FAILED_PRECONDITION
                raise RaftHostError(Facts(code, words, Effect.NONE))
            number = self._numbers.take()
            try:
                response = self._send(command, number)
            except BaseException as failed:
                self._give_up(number, failed)
                raise
            self._numbers.done(number)
        return answers.applied(response)

    def _send(self, command: bytes, number: int, skip: bool = False) -> Any:
        return self._client.call(
            _method("Apply"), lambda: self._request(command, number, skip), True
        )

    def _give_up(self, number: int, failed: BaseException) -> None:
        """Nobody waits for the answer any more."""
        if self.ordered:
            if not self._skipped(number, failed):
                self._broken = True
                return
        self._numbers.done(number)

    def _skipped(self, number: int, failed: BaseException) -> bool:
        """Whether the failure is of no other command's concern: those behind it need not wait."""
        if not isinstance(failed, RaftHostError):
            return False
        if failed.code != grpc.StatusCode.INVALID_ARGUMENT:
            return False
        try:
            self._send(b"", number, skip=True)
        except RaftHostError:
            return False
        return True

    def keep(self) -> None:
        """Tells the cluster that the session is in use."""
        self._client.call(_method("KeepSession"), self._keep_request, True)

    def close(self) -> None:
        """Has the cluster forget it. One that is gone already is no error."""
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()
        request = client_pb2.CloseSessionRequest(group=self._client.group, session_id=self.id)
        try:
            self._client.call(_method("CloseSession"), lambda: request, True)
        except SessionExpired:
            pass

    def _request(self, command: bytes, number: int, skip: bool) -> Any:
        # Number and command are those of the first attempt; what is acknowledged may be more.
        session = client_pb2.SessionCommand(
            session_id=self.id,
            sequence=number,
            acknowledged=self._numbers.acknowledged(),
            skip=skip,
        )
        group = self._client.group
        return client_pb2.ApplyRequest(group=group, command=command, session=session)

    def _keep_request(self) -> Any:
        return client_pb2.KeepSessionRequest(
            group=self._client.group,
            session_id=self.id,
            acknowledged=self._numbers.acknowledged(),
        )

    def _keep(self) -> None:
        while not self._closing.wait(self.ttl / 3):
            try:
                self.keep()
            except SessionExpired:
                return
            except RaftHostError:
                # Whoever uses the session next learns what the matter is.
                continue


def _method(name: str) -> Any:
    return lambda channel: getattr(client_pb2_grpc.ClientStub(channel), name)
