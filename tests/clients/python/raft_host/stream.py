"""Many commands over one stream."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc

from raft_host import answers
from raft_host.answers import Applied
from raft_host.errors import Effect, Facts, error, facts_of_call, from_apply_error
from raft_host.v1 import client_pb2

#: Commands in one message, if all are there from the beginning.
BATCH = 64


@dataclass(frozen=True)
class StreamResult:
    """What became of one command."""

    #: Which command it was, from 0 on.
    tag: int
    response: Any = None
    failure: Facts | None = None

    def applied(self) -> Applied:
        """What the state machine said; raises what a single call would have raised."""
        if self.failure is not None:
            raise error(self.failure)
        return answers.applied(self.response)


class _Sending:
    """What is sent, read by grpcio's own thread; what has no answer yet."""

    def __init__(self, group: str, timeout: float, commands: Iterable[bytes], window: int) -> None:
        self.waiting: set[int] = set()
        self.ended = False
        self.failure: BaseException | None = None
        self._group = group
        self._timeout_ms = round(timeout * 1000)
        self._commands = enumerate(commands)
        # A command that its maker has handed over must not wait for the next one.
        self._batch = BATCH if isinstance(commands, Sequence) else 1
        self._window = window
        self._room = threading.Condition()

    def requests(self) -> Iterator[Any]:
        """Messages, as long as there is room for their commands."""
        while True:
            with self._room:
                while len(self.waiting) >= self._window and not self.ended:
                    self._room.wait()
                if self.ended:
                    return
                room = min(self._window - len(self.waiting), self._batch)
            try:
                taken = list(itertools.islice(self._commands, room))
            except BaseException as failed:  # of the caller's iterator: raised to the caller
                self.failure = failed
                return
            if not taken:
                return
            with self._room:
                self.waiting.update(tag for tag, _ in taken)
            yield client_pb2.ApplyStreamRequest(
                commands=[
                    client_pb2.TaggedCommand(
                        tag=tag,
                        request=client_pb2.ApplyRequest(group=self._group, command=command),
                        timeout_ms=self._timeout_ms,
                    )
                    for tag, command in taken
                ]
            )

    def answered(self, tag: int) -> bool:
        """Makes room; False: nobody waits for it."""
        with self._room:
            known = tag in self.waiting
            self.waiting.discard(tag)
            self._room.notify()
            return known

    def end(self) -> None:
        """Nothing is sent any more."""
        with self._room:
            self.ended = True
            self._room.notify()


def run(
    stub: Any,
    metadata: tuple[tuple[str, str], ...],
    group: str,
    timeout: float,
    commands: Iterable[bytes],
    window: int,
) -> Iterator[StreamResult]:
    """Yields a result for every command that was sent. When the stream breaks, what has no
    answer may have happened: those results say so."""
    if window < 1:
        raise ValueError("the window must have room for a command")
    sending = _Sending(group, timeout, commands, window)
    call = stub.ApplyStream(sending.requests(), metadata=metadata)
    broke = Facts(grpc.StatusCode.UNAVAILABLE, "the stream ended without an answer", Effect.UNKNOWN)
    try:
        for message in call:
            for result in message.results:
                if sending.answered(result.tag):
                    yield _result(result)
    except grpc.RpcError as failed:
        # Whatever the end says is about the call, not about commands that were sent before.
        broke = replace(facts_of_call(failed), effect=Effect.UNKNOWN)
    finally:
        sending.end()
        call.cancel()
    if sending.failure is not None:
        raise sending.failure
    for tag in sorted(sending.waiting):
        yield StreamResult(tag, failure=broke)


def _result(result: Any) -> StreamResult:
    if result.WhichOneof("result") == "response":
        return StreamResult(result.tag, response=result.response)
    return StreamResult(result.tag, failure=from_apply_error(result.error))
