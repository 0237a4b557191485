"""Why a call failed, in types: what the trailers say, or what must be assumed without them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from raft_host.v1 import errors_pb2

#: The reasons of the contract (`Reason.REASON_BUSY`, ...). A newer node may send others.
Reason = errors_pb2.Reason

EFFECT_KEY = "raft-host-effect"
DETAILS_KEY = "grpc-status-details-bin"

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Effect(Enum):
    """What became of a request that failed."""

    #: It may have happened, or may still happen.
    UNKNOWN = "unknown"
    #: It surely did not happen and will not.
    NONE = "none"


@dataclass(frozen=True)
class Leader:
    """Who leads the group, as far as the node that answered knew."""

    node_id: int
    address: str
    term: int


@dataclass(frozen=True)
class Exceeded:
    """A limit, what was asked for, and the most that is allowed."""

    limit: str
    value: int
    max: int


@dataclass(frozen=True)
class Facts:
    """What one failed attempt said."""

    code: grpc.StatusCode
    message: str
    effect: Effect
    reason: int = 0
    #: Seconds; None: the node did not say.
    retry_after: float | None = None
    leader: Leader | None = None
    index: int = 0
    exceeded: Exceeded | None = None


class RaftHostError(Exception):
    """A call that failed. `effect` covers all attempts: `NONE` only if each had none."""

    def __init__(self, facts: Facts, effect: Effect | None = None) -> None:
        self.code = facts.code
        self.message = facts.message
        self.effect = effect or facts.effect
        self.reason = facts.reason
        self.retry_after = facts.retry_after
        self.leader = facts.leader
        #: What the failure is about, in the log; 0: no entry.
        self.index = facts.index
        self.exceeded = facts.exceeded
        super().__init__(f"{self.message} ({self.reason_name}, effect: {self.effect.value})")

    @property
    def reason_name(self) -> str:
        """`REASON_...`, or the number of a reason that this client does not know."""
        known = self.reason in Reason.values()
        return str(Reason.Name(self.reason)) if known else f"reason {self.reason}"


class OtherCluster(RaftHostError):
    """No address belongs to the cluster that the request is meant for."""


class ClusterRestored(OtherCluster):
    """The cluster was restored from a backup of the one that the request is meant for, as of entry
    `index`: begin anew, with its id and a new session."""


class NoSuchGroup(RaftHostError):
    """The cluster has no group of that name."""


class TooLarge(RaftHostError):
    """Longer than allowed; `exceeded` names the limit."""


class UnknownMethod(RaftHostError):
    """The method is not there, or not in the node's version."""


class SessionExpired(RaftHostError):
    """The session is gone; of its commands without an answer nothing is known any more."""


_CLASSES: dict[int, type[RaftHostError]] = {
    Reason.REASON_OTHER_CLUSTER: OtherCluster,
    Reason.REASON_CLUSTER_RESTORED: ClusterRestored,
    Reason.REASON_NO_SUCH_GROUP: NoSuchGroup,
    Reason.REASON_TOO_LARGE: TooLarge,
    Reason.REASON_UNKNOWN_METHOD: UnknownMethod,
    Reason.REASON_SESSION_EXPIRED: SessionExpired,
}


def is_strange(facts: Facts) -> bool:
    """Whether a node of another cluster has answered, which did nothing of it."""
    return issubclass(_CLASSES.get(facts.reason, RaftHostError), OtherCluster)


def error(facts: Facts, effect: Effect | None = None) -> RaftHostError:
    """The exception for what an attempt said; `effect`: that of all attempts."""
    return _CLASSES.get(facts.reason, RaftHostError)(facts, effect)


def facts_of(
    code: grpc.StatusCode, message: str, trailers: Iterable[tuple[str, str | bytes]]
) -> Facts:
    """What the end of a call says, of which only the code is certain to be there."""
    found = dict(trailers)
    detail = _detail(found.get(DETAILS_KEY))
    if detail is not None:
        return from_detail(code, message, detail)
    said_none = found.get(EFFECT_KEY) == Effect.NONE.value
    return Facts(code, message, Effect.NONE if said_none else Effect.UNKNOWN)


def facts_of_call(failed: Any) -> Facts:
    """The same for what grpcio raises."""
    trailers = [(item[0], item[1]) for item in failed.trailing_metadata() or ()]
    return facts_of(failed.code(), failed.details() or "", trailers)


def from_detail(code: grpc.StatusCode, message: str, detail: Any) -> Facts:
    """What an `ErrorDetail` says."""
    leader, exceeded = detail.leader, detail.exceeded
    return Facts(
        code,
        message,
        Effect.NONE if detail.effect == errors_pb2.EFFECT_NONE else Effect.UNKNOWN,
        detail.reason,
        detail.retry_after_ms / 1000 if detail.HasField("retry_after_ms") else None,
        Leader(leader.node_id, leader.address, leader.term) if detail.HasField("leader") else None,
        detail.index,
        Exceeded(exceeded.limit, exceeded.value, exceeded.max)
        if detail.HasField("exceeded")
        else None,
    )


def from_apply_error(failed: Any) -> Facts:
    """What an `ApplyError` of a stream says."""
    code = _CODES.get(failed.code, grpc.StatusCode.UNKNOWN)
    if failed.HasField("detail"):
        return from_detail(code, failed.message, failed.detail)
    return Facts(code, failed.message, Effect.UNKNOWN)


def _detail(encoded: str | bytes | None) -> Any:
    """The `ErrorDetail`; None if there is none, or none that can be read."""
    if not isinstance(encoded, bytes):
        return None
    try:
        for packed in status_pb2.Status.FromString(encoded).details:
            detail = errors_pb2.ErrorDetail()
            if packed.Unpack(detail):
                return detail
    except DecodeError:
        pass
    return None
