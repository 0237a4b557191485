"""A client for raft-host clusters: `Client` is where to begin."""

from raft_host.answers import Answer, Applied, Rejected, Trapped
from raft_host.client import Client, Consistency, Timeouts
from raft_host.errors import (
    ClusterRestored,
    Effect,
    Exceeded,
    Leader,
    NoSuchGroup,
    OtherCluster,
    RaftHostError,
    Reason,
    SessionExpired,
    TooLarge,
    UnknownMethod,
)
from raft_host.session import Session
from raft_host.stream import StreamResult

__all__ = [
    "Answer",
    "Applied",
    "Client",
    "ClusterRestored",
    "Consistency",
    "Effect",
    "Exceeded",
    "Leader",
    "NoSuchGroup",
    "OtherCluster",
    "RaftHostError",
    "Reason",
    "Rejected",
    "Session",
    "SessionExpired",
    "StreamResult",
    "Timeouts",
    "TooLarge",
    "Trapped",
    "UnknownMethod",
]
