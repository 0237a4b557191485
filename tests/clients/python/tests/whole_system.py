"""Against a cluster that runs the counter: everything the client promises, through the death of
a leader, which whoever runs this kills when it reads `writing`.

Usage: whole_system.py HOST:PORT...
"""

import itertools
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from raft_host import (
    Applied,
    Client,
    Consistency,
    Effect,
    NoSuchGroup,
    OtherCluster,
    RaftHostError,
    Reason,
    Rejected,
    SessionExpired,
    Timeouts,
    TooLarge,
    UnknownMethod,
)
from raft_host.v1 import client_pb2, client_pb2_grpc

THREADS = 8
PATIENT = Timeouts(call=120.0)


def main(addresses: list[str]) -> None:
    with Client(addresses, timeouts=PATIENT) as client:
        describes_itself(client, addresses)
        done = exactly_once_through_the_death_of_a_leader(client)
        reads_its_own_writes_everywhere(client, addresses)
        streams(client, done)
        full_sessions_are_relieved(client, addresses)
        sessions_end(client)
        ordered_sessions_keep_their_order(client)
        errors_are_typed(client, addresses)
        knows_its_health(addresses)
    print("done", flush=True)


def describes_itself(client: Client, addresses: list[str]) -> None:
    assert client.status().cluster_id.hex() == client.cluster_id()
    members = {member.address for member in client.members(linearizable=True).members}
    assert members == set(addresses), members
    assert [module.active for module in client.modules().modules] == [True]
    assert client.limits().limits.input_max_bytes > 0


def exactly_once_through_the_death_of_a_leader(client: Client) -> int:
    """Adds 1 until well after the leader's death. Each answer is the sum so far, so that a command
    that was executed twice leaves a gap, and one that was lost makes the sum too small."""
    stop = threading.Event()

    def write() -> list[Applied]:
        mine = []
        while not stop.is_set():
            mine.append(session.apply(b"1"))
        return mine

    with client.open_session() as session, ThreadPoolExecutor(THREADS) as pool:
        writers = [pool.submit(write) for _ in range(THREADS)]
        try:
            assert session.apply(b"1").output.isdigit()
            print("writing", flush=True)
            # Says that the leader is dead, and then that it is there again.
            for _ in range(2):
                assert sys.stdin.readline(), "nobody killed the leader"
                assert session.apply(b"1").output.isdigit()
        finally:
            stop.set()
        answers = [applied for writer in writers for applied in writer.result()]
    sums = {int(applied.output) for applied in answers}
    # And the three of this thread.
    done = len(answers) + 3
    assert len(sums) == len(answers), "two commands had one answer"
    assert sums < set(range(1, done + 1)), "a command was executed twice"
    positions = {(applied.index, applied.ordinal) for applied in answers}
    assert len(positions) == len(answers), "two commands have one position"
    assert int(client.query(b"").output) == done
    print(f"{done} commands were executed exactly once", flush=True)
    return done


def reads_its_own_writes_everywhere(client: Client, addresses: list[str]) -> None:
    for address in addresses:
        applied = client.apply(b"0")
        with Client([address], client.cluster_id(), timeouts=PATIENT) as one:
            answer = one.query(b"", Consistency.STALE, min_index=applied.index)
            assert answer.applied_index >= applied.index
            assert answer.output == applied.output
            fresh = one.query(b"", Consistency.STALE, max_staleness=60.0)
            assert fresh.age_ms is None or fresh.age_ms <= 60_000


def streams(client: Client, before: int) -> None:
    results = {result.tag: result for result in client.apply_stream([b"1"] * 500, window=100)}
    assert set(results) == set(range(500))
    sums = {int(result.applied().output) for result in results.values()}
    assert sums == set(range(before + 1, before + 501))
    # Not a list: each command is sent when it is there.
    asked = iter([b"0", b"no number"])
    mixed = {result.tag: result for result in client.apply_stream(asked)}
    assert mixed[0].applied().output == str(before + 500).encode()
    raises(Rejected, mixed[1].applied)
    # Whoever leaves a stream early ends it.
    endless = client.apply_stream(itertools.repeat(b"0"), window=10)
    assert [result.applied() for result in itertools.islice(endless, 50)]


def full_sessions_are_relieved(client: Client, addresses: list[str]) -> None:
    """A session that keeps all that it may takes nothing until the client acknowledges."""
    acknowledged = 0

    def opening(channel: grpc.Channel) -> Any:
        return client_pb2_grpc.ClientStub(channel).OpenSession

    def applying(channel: grpc.Channel) -> Any:
        return client_pb2_grpc.ClientStub(channel).Apply

    opened = client.call(opening, client_pb2.OpenSessionRequest, True)
    most = opened.responses_max

    def send(by: Client, sequence: int) -> object:
        def make() -> client_pb2.ApplyRequest:
            session = client_pb2.SessionCommand(
                session_id=opened.session_id, sequence=sequence, acknowledged=acknowledged
            )
            return client_pb2.ApplyRequest(command=b"0", session=session)

        return by.call(applying, make, True)

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda sequence: send(client, sequence), range(1, most + 1)))
        with Client(addresses, client.cluster_id(), timeouts=Timeouts(call=4.0)) as hasty:
            full = raises(RaftHostError, lambda: send(hasty, most + 1))
        assert full.reason == Reason.REASON_SESSION_FULL, full
        assert (full.code, full.effect) == (grpc.StatusCode.RESOURCE_EXHAUSTED, Effect.NONE), full
        waiting = pool.submit(send, client, most + 1)
        time.sleep(0.1)
        acknowledged = most
        waiting.result()
    late = raises(RaftHostError, lambda: send(client, most))
    assert late.reason == Reason.REASON_SEQUENCE_TOO_OLD, late
    assert late.code == grpc.StatusCode.ALREADY_EXISTS, late


def sessions_end(client: Client) -> None:
    session = client.open_session()
    session.apply(b"0")
    session.close()
    gone = raises(SessionExpired, lambda: session.apply(b"0"))
    # Whether an earlier attempt was executed is no longer known, if there was one.
    assert (gone.code, gone.effect) == (grpc.StatusCode.NOT_FOUND, Effect.UNKNOWN), gone
    session.close()

    # One that nobody keeps expires by the log's clock, one that is kept does not.
    kept = client.open_session(ttl=1.0)
    forgotten = client.open_session(ttl=1.0, keep_alive=False)
    wait = forgotten.ttl * 3
    print(f"a session lives for {forgotten.ttl} s at least", flush=True)
    ends = time.monotonic() + wait
    while time.monotonic() < ends:
        client.apply(b"0")
        time.sleep(0.1)
    raises(SessionExpired, lambda: forgotten.apply(b"0"))
    kept.apply(b"0")
    kept.close()


def ordered_sessions_keep_their_order(client: Client) -> None:
    """Each answer is the sum so far, which tells what was executed before."""
    before = int(client.query(b"").output)
    with client.open_session(ordered=True) as session, ThreadPoolExecutor(4) as pool:
        assert session.ordered

        def send(sequence: int) -> Any:
            def make() -> client_pb2.ApplyRequest:
                numbers = client_pb2.SessionCommand(session_id=session.id, sequence=sequence)
                return client_pb2.ApplyRequest(command=b"1" + b"0" * sequence, session=numbers)

            return client.call(lambda it: client_pb2_grpc.ClientStub(it).Apply, make, True)

        early = [pool.submit(send, sequence) for sequence in (4, 3, 2)]
        answers = [send(1)] + [waiting.result() for waiting in reversed(early)]
        sums = [int(answer.outcome.ok) - before for answer in answers]
        assert sums == [10, 110, 1110, 11110], sums
        positions = [(answer.position.index, answer.position.ordinal) for answer in answers]
        assert positions == sorted(set(positions)), positions

    with client.open_session(ordered=True) as session:
        first = int(session.apply(b"1").output)
        longest = client.limits().limits.input_max_bytes
        raises(TooLarge, lambda: session.apply(b"1" * (longest + 1)))
        assert int(session.apply(b"1").output) == first + 1, "its number holds nothing up"
        session.close()
        raises(SessionExpired, lambda: session.apply(b"1"))
        gone = raises(RaftHostError, lambda: session.apply(b"1"))
        assert (gone.code, gone.effect) == (grpc.StatusCode.FAILED_PRECONDITION, Effect.NONE), gone


def errors_are_typed(client: Client, addresses: list[str]) -> None:
    with Client(addresses, cluster_id="ab" * 16) as stranger:
        other = raises(OtherCluster, lambda: stranger.apply(b"1"))
        assert (other.reason, other.effect) == (Reason.REASON_OTHER_CLUSTER, Effect.NONE)

    with Client(addresses, group="nowhere") as lost:
        for call in (lambda: lost.apply(b"1"), lambda: lost.query(b""), lost.open_session):
            missing = raises(NoSuchGroup, call)
            assert (missing.code, missing.effect) == (grpc.StatusCode.NOT_FOUND, Effect.NONE)

    longest = client.limits().limits.input_max_bytes
    too_large = raises(TooLarge, lambda: client.apply(b"1" * (longest + 1)))
    assert too_large.effect is Effect.NONE
    exceeded = too_large.exceeded
    assert exceeded is not None and exceeded.limit == "input_max_bytes", exceeded
    assert (exceeded.value, exceeded.max) == (longest + 1, longest), exceeded

    def unknown(channel: grpc.Channel) -> object:
        return channel.unary_unary("/raft_host.v1.Client/Guess")

    nothing = raises(UnknownMethod, lambda: client.call(unknown, lambda: b"", True))
    assert (nothing.code, nothing.effect) == (grpc.StatusCode.UNIMPLEMENTED, Effect.NONE)

    raises(Rejected, lambda: client.apply(b"no number"))

    with Client(["127.0.0.1:1"], timeouts=Timeouts(call=0.5)) as nobody:
        refused = raises(RaftHostError, lambda: nobody.apply(b"1"))
        assert (refused.code, refused.effect) == (grpc.StatusCode.UNAVAILABLE, Effect.NONE)


def knows_its_health(addresses: list[str]) -> None:
    for address in addresses:
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in ("", "raft_host.v1.Client", "raft_host.v1.Admin", "group/main"):
                asked = health_pb2.HealthCheckRequest(service=service)
                status = health.Check(asked, timeout=30.0).status
                assert status == health_pb2.HealthCheckResponse.SERVING, (service, status)
            listed = set(ProtoReflectionDescriptorDatabase(channel).get_services())
            assert {"raft_host.v1.Client", "raft_host.v1.Admin", "grpc.health.v1.Health"} <= listed


E = TypeVar("E", bound=BaseException)


def raises(kind: type[E], call: Callable[[], object]) -> E:
    """The exception, which must be of that kind."""
    try:
        result = call()
    except kind as failure:
        return failure
    raise AssertionError(f"no {kind.__name__}, but {result}")


if __name__ == "__main__":
    main(sys.argv[1:])
