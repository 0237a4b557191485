"""Whether and when a failed attempt is followed by another one."""

from __future__ import annotations

import random
from collections.abc import Callable

import grpc

from raft_host.errors import Effect, Facts, is_strange

#: After other codes the same request is refused again.
RETRYABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    }
)

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
SHORTEST_ATTEMPT = 0.5


def shortest_attempt(call: float) -> float:
    """The least time that another attempt is worth beginning with, of a request that has `call` in all.

    Its answer might come too late otherwise, and what surely had no effect would end as of unknown effect.
    """
    return min(SHORTEST_ATTEMPT, call / 4)


class Attempts:
    """The attempts at one request: what they did so far, and what may follow."""

    def __init__(self, repeatable: bool, draw: Callable[[], float] = random.random) -> None:
        """`repeatable`: trying again is harmless whatever became of earlier attempts."""
        self.effect = Effect.NONE
        self._repeatable = repeatable
        self._draw = draw
        self._pause = FIRST_PAUSE

    def failed(self, facts: Facts) -> float | None:
        """Seconds to wait before the next attempt; None: there must not be one."""
        if facts.effect is Effect.UNKNOWN:
            self.effect = Effect.UNKNOWN
        # Another address may still be right.
        elsewhere = is_strange(facts)
        if facts.code not in RETRYABLE and not elsewhere:
            return None
        if not self._repeatable and self.effect is Effect.UNKNOWN:
            return None
        pause = self._pause / 2 + self._draw() * self._pause / 2
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return max(pause, facts.retry_after or 0.0)
