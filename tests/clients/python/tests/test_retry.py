"""Which failures are followed by another attempt, and after what pause."""

import unittest

import grpc

from raft_host import ClusterRestored, Effect, OtherCluster, Reason
from raft_host.endpoints import Endpoints
from raft_host.errors import Facts, error
from raft_host.retry import Attempts, shortest_attempt

CODES = grpc.StatusCode


def facts(code: grpc.StatusCode, effect: Effect, **more: object) -> Facts:
    return Facts(code, "", effect, **more)  # type: ignore[arg-type]


class Retry(unittest.TestCase):
    def test_codes_that_time_does_not_mend_end_it(self) -> None:
        for code in (CODES.INVALID_ARGUMENT, CODES.NOT_FOUND, CODES.INTERNAL, CODES.OUT_OF_RANGE):
            self.assertIsNone(Attempts(repeatable=True).failed(facts(code, Effect.NONE)))

    def test_an_unknown_effect_forbids_all_that_follows(self) -> None:
        attempts = Attempts(repeatable=False)
        self.assertIsNotNone(attempts.failed(facts(CODES.UNAVAILABLE, Effect.NONE)))
        self.assertIsNone(attempts.failed(facts(CODES.UNAVAILABLE, Effect.UNKNOWN)))
        self.assertIsNone(attempts.failed(facts(CODES.UNAVAILABLE, Effect.NONE)))
        self.assertEqual(attempts.effect, Effect.UNKNOWN)

    def test_what_may_be_repeated_goes_on_and_remembers(self) -> None:
        attempts = Attempts(repeatable=True)
        self.assertIsNotNone(attempts.failed(facts(CODES.DEADLINE_EXCEEDED, Effect.UNKNOWN)))
        self.assertIsNone(attempts.failed(facts(CODES.NOT_FOUND, Effect.NONE)))
        self.assertEqual(attempts.effect, Effect.UNKNOWN)

    def test_no_attempt_begins_that_could_hardly_end_in_time(self) -> None:
        self.assertEqual(shortest_attempt(10.0), 0.5)
        self.assertEqual(shortest_attempt(0.4), 0.1)

    def test_pauses_double_up_to_a_second(self) -> None:
        for draw, part in ((lambda: 0.0, 0.5), (lambda: 1.0, 1.0)):
            attempts = Attempts(repeatable=True, draw=draw)
            pauses = [attempts.failed(facts(CODES.UNAVAILABLE, Effect.NONE)) for _ in range(8)]
            full = [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
            for pause, longest in zip(pauses, full, strict=True):
                self.assertAlmostEqual(pause or 0.0, longest * part)

    def test_the_pause_of_the_node_is_kept(self) -> None:
        busy = facts(CODES.RESOURCE_EXHAUSTED, Effect.NONE, retry_after=3.0)
        self.assertEqual(Attempts(repeatable=False).failed(busy), 3.0)

    def test_an_address_of_another_cluster_is_no_reason_to_give_up(self) -> None:
        for reason, kind in (
            (Reason.REASON_OTHER_CLUSTER, OtherCluster),
            (Reason.REASON_CLUSTER_RESTORED, ClusterRestored),
        ):
            other = facts(CODES.FAILED_PRECONDITION, Effect.NONE, reason=reason)
            self.assertIsNotNone(Attempts(repeatable=False).failed(other))
            self.assertIs(type(error(other)), kind)


class Rotation(unittest.TestCase):
    def test_whoever_fails_second_does_not_skip_one(self) -> None:
        endpoints = Endpoints(["a:1", "b:1", "c:1"])
        first = endpoints.current()
        endpoints.failed(first)
        endpoints.failed(first)
        self.assertEqual(endpoints.current().address, "b:1")

    def test_the_last_address_stays_though_it_is_strange(self) -> None:
        endpoints = Endpoints(["a:1", "b:1"])
        self.assertTrue(endpoints.strange(endpoints.current()))
        self.assertEqual(endpoints.current().address, "b:1")
        self.assertFalse(endpoints.strange(endpoints.current()))

    def test_no_address_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            Endpoints([])
