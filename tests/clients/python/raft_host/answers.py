"""What the state machine said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raft_host.v1 import common_pb2


class Rejected(Exception):
    """The state machine said no and changed nothing."""

    def __init__(self, reason: bytes, index: int) -> None:
        self.reason = reason
        #: The entry of the log; of a query, the one that the answer reflects.
        self.index = index
        super().__init__(reason.decode(errors="replace"))


class Trapped(Exception):
    """The state machine broke; its state is as if the request had never been."""

    def __init__(self, kind: int, message: str, index: int) -> None:
        self.kind = kind
        self.message = message
        self.index = index
        known = kind in common_pb2.TrapKind.values()
        name = common_pb2.TrapKind.Name(kind) if known else f"trap kind {kind}"
        super().__init__(f"{name}: {message}")


@dataclass(frozen=True)
class Applied:
    """A command that was done."""

    output: bytes
    #: The entry of the log, and which of its commands it was.
    index: int
    ordinal: int
    #: An earlier attempt had done it already; this is its answer.
    duplicate: bool
    fuel_used: int


@dataclass(frozen=True)
class Answer:
    """The answer of a query."""

    output: bytes
    #: It reflects all entries up to and including this one.
    applied_index: int
    #: How old it may be, in milliseconds; None: the node does not know.
    age_ms: int | None
    fuel_used: int


def applied(response: Any) -> Applied:
    """Reads an `ApplyResponse`; raises `Rejected` and `Trapped`."""
    position = response.position
    output = _output(response, position.index)
    duplicate = response.outcome.duplicate
    return Applied(output, position.index, position.ordinal, duplicate, response.fuel_used)


def answer(response: Any) -> Answer:
    """Reads a `QueryResponse`; raises `Rejected` and `Trapped`."""
    output = _output(response, response.applied_index)
    age_ms = response.age_ms if response.HasField("age_ms") else None
    return Answer(output, response.applied_index, age_ms, response.fuel_used)


def _output(response: Any, index: int) -> bytes:
    outcome = response.outcome
    match outcome.WhichOneof("kind"):
        case "ok":
            return bytes(outcome.ok)
        case "rejected":
            raise Rejected(outcome.rejected, index)
        case _:
            raise Trapped(outcome.trapped, response.trap_message, index)
