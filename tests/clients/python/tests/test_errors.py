"""What is made of trailers, whoever sent them."""

import unittest

import grpc
from google.protobuf import any_pb2
from google.rpc import status_pb2

from raft_host import Effect, Exceeded, Reason, SessionExpired, TooLarge
from raft_host.errors import error, facts_of, from_apply_error
from raft_host.v1 import client_pb2, errors_pb2

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def packed(detail: errors_pb2.ErrorDetail) -> bytes:
    wrapped = any_pb2.Any()
    wrapped.Pack(detail)
    return status_pb2.Status(code=3, details=[wrapped]).SerializeToString()


class Errors(unittest.TestCase):
    def test_the_detail_says_everything(self) -> None:
        detail = errors_pb2.ErrorDetail(
            reason=Reason.REASON_TOO_LARGE,
            effect=errors_pb2.EFFECT_NONE,
            retry_after_ms=1500,
            index=7,
            exceeded=errors_pb2.Exceeded(limit="input_max_bytes", value=9, max=8),
        )
        trailers = [("grpc-status-details-bin", packed(detail)), ("raft-host-effect", "none")]
        failure = error(facts_of(grpc.StatusCode.INVALID_ARGUMENT, "too long", trailers))
        self.assertIsInstance(failure, TooLarge)
        self.assertEqual(failure.effect, Effect.NONE)
        self.assertEqual((failure.retry_after, failure.index), (1.5, 7))
        self.assertEqual(failure.exceeded, Exceeded("input_max_bytes", 9, 8))
        self.assertIsNone(failure.leader)
        self.assertIn("REASON_TOO_LARGE", str(failure))

    def test_without_a_detail_the_trailer_counts(self) -> None:
        for trailers, effect in [
            ([("raft-host-effect", "none")], Effect.NONE),
            ([("raft-host-effect", "unknown")], Effect.UNKNOWN),
            ([("raft-host-effect", "some day")], Effect.UNKNOWN),
            ([], Effect.UNKNOWN),
            ([("grpc-status-details-bin", b"\xff\xff")], Effect.UNKNOWN),
            ([("grpc-status-details-bin", b"\xff"), ("raft-host-effect", "none")], Effect.NONE),
        ]:
            self.assertEqual(facts_of(UNAVAILABLE, "", trailers).effect, effect, trailers)

    def test_a_reason_of_a_newer_node_is_kept_as_a_number(self) -> None:
        detail = errors_pb2.ErrorDetail()
        detail.MergeFromString(b"\x08\xe8\x07")  # reason = 1000
        trailers = [("grpc-status-details-bin", packed(detail))]
        failure = error(facts_of(UNAVAILABLE, "new", trailers))
        self.assertEqual((failure.reason, failure.reason_name), (1000, "reason 1000"))

    def test_a_command_of_a_stream_has_the_same_facts(self) -> None:
        detail = errors_pb2.ErrorDetail(reason=Reason.REASON_SESSION_EXPIRED, effect=1)
        failed = client_pb2.ApplyError(code=5, message="gone", detail=detail)
        failure = error(from_apply_error(failed))
        self.assertIsInstance(failure, SessionExpired)
        self.assertEqual(failure.code, grpc.StatusCode.NOT_FOUND)
        self.assertEqual(failure.effect, Effect.NONE)
