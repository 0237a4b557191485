// Tests of the job queue, built by the host's own compiler: `make test`. check.script has the long stories.
#include "../../guest-sdk/cpp/raft_fsm.hpp"

#include <cstdio>

using fsm::test::Cluster;
using fsm::test::ok;
using fsm::test::rejected;

namespace {

std::string number(std::uint64_t value) { return std::to_string(value); }

void jobs_are_taken_in_the_order_in_which_they_were_pushed() {
    Cluster cluster;
    for (int i = 1; i <= 20; i++) RAFT_FSM_EXPECT(cluster.apply("push q 1 0 job " + number(i)), ok(number(i)));
    for (int i = 1; i <= 20; i++)
        RAFT_FSM_EXPECT(cluster.apply("take q w 1000"), ok(number(i) + " 1 1700000001000 job " + number(i)));
    RAFT_FSM_EXPECT(cluster.apply("take q w 1000"), ok("none"));
    RAFT_FSM_EXPECT(cluster.apply("take other w 1000"), ok("none"));
    cluster.renew();
}

void a_job_that_failed_keeps_its_place() {
    Cluster cluster;
    cluster.apply("push q 2 0 first");
    cluster.apply("push q 2 0 second");
    cluster.apply("take q w 1000");
    RAFT_FSM_EXPECT(cluster.apply("fail 1 1 0 no"), ok("ready"));
    RAFT_FSM_EXPECT(cluster.apply("take q w 1000"), ok("1 2 1700000001000 first"));
}

void a_lease_ends_at_its_deadline_and_not_before() {
    Cluster cluster;
    cluster.apply("push q 2 0 x");
    cluster.apply("take q slow 100");
    cluster.advance(99);
    RAFT_FSM_EXPECT(cluster.apply("take q fast 100"), ok("none"));
    cluster.advance(1);
    RAFT_FSM_EXPECT(cluster.apply("extend 1 1 100"), rejected("job 1 has no lease for attempt 1"));
    RAFT_FSM_EXPECT(cluster.apply("take q fast 100"), ok("1 2 1700000000200 x"));
    RAFT_FSM_EXPECT(cluster.apply("done 1 1"), rejected("job 1 has no lease for attempt 1"));
    RAFT_FSM_EXPECT(cluster.apply("done 1 2"), ok());
    RAFT_FSM_EXPECT(cluster.query("job 1"), rejected("there is no job 1"));
    RAFT_FSM_EXPECT(cluster.query("queues"), ok());
}

void an_old_lease_is_never_good_again_even_after_a_requeue() {
    Cluster cluster;
    cluster.apply("push q 1 0 x");
    cluster.apply("take q w 100");
    cluster.advance(100);
    RAFT_FSM_EXPECT(cluster.apply("take q w 100"), ok("none"));
    RAFT_FSM_EXPECT(cluster.events(), "dead q 1 the lease ended\n");
    RAFT_FSM_EXPECT(cluster.apply("requeue 1"), ok());
    RAFT_FSM_EXPECT(cluster.apply("take q w 100"), ok("1 2 1700000000200 x"));
    RAFT_FSM_EXPECT(cluster.apply("done 1 1"), rejected("job 1 has no lease for attempt 1"));
}

void many_jobs_are_settled_in_pieces() {
    Cluster cluster;
    for (int i = 0; i < 501; i++) cluster.apply("push q 1 10 x");
    cluster.advance(10);
    RAFT_FSM_EXPECT(cluster.apply("tick"), ok("{\"settled\":500,\"more\":true}"));
    RAFT_FSM_EXPECT(cluster.apply("tick"), ok("{\"settled\":1,\"more\":false}"));
    cluster.renew();
    RAFT_FSM_EXPECT(cluster.query("stats q"), ok("{\"ready\":501,\"delayed\":0,\"leased\":0,\"dead\":0}"));
}

void payloads_are_any_bytes_up_to_the_limit() {
    Cluster cluster;
    std::string bytes("\0 \n\xff", 4);
    RAFT_FSM_EXPECT(cluster.apply("push q 1 0 " + bytes), ok("1"));
    RAFT_FSM_EXPECT(cluster.query("payload 1"), ok(bytes));
    RAFT_FSM_EXPECT(cluster.apply("push q 1 0 " + std::string(65536, 'x')), ok("2"));
    RAFT_FSM_EXPECT(cluster.apply("push q 1 0 " + std::string(65537, 'x')),
                    rejected("a payload has at most 65536 bytes"));
    RAFT_FSM_EXPECT(cluster.apply("push q 1 0"), ok("3"));
    RAFT_FSM_EXPECT(cluster.query("payload 3"), ok());
    cluster.renew();
}

// Random commands over a few jobs. The runner checks after each that queries and what was rejected changed nothing, and
// every tenth is followed by an upgrade; no job is ever lost.
void whatever_happens_no_job_is_lost() {
    Cluster cluster;
    std::uint64_t seed = 1, pushed = 0, done = 0, discarded = 0;
    auto below = [&seed](std::uint64_t most) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        return (seed >> 33) % most;
    };
    for (int i = 0; i < 3000; i++) {
        std::string id = number(1 + below(pushed + 1)), attempt = number(1 + below(4));
        bool good = true;
        switch (below(8)) {
        case 0: pushed += cluster.apply("push q 2 " + number(below(2) * 50) + " x").kind == FSM_TEST_OK; break;
        case 1:
        case 2: good = cluster.apply("take q w " + number(1 + below(100))).kind == FSM_TEST_OK; break;
        case 3: done += cluster.apply("done " + id + " " + attempt).kind == FSM_TEST_OK; break;
        case 4: good = cluster.apply("fail " + id + " " + attempt + " 20 no").kind != FSM_TEST_TRAPPED; break;
        case 5: good = cluster.apply("requeue " + id).kind != FSM_TEST_TRAPPED; break;
        case 6: discarded += cluster.apply("discard " + id).kind == FSM_TEST_OK; break;
        default: cluster.advance(below(60)); good = cluster.apply("tick").kind == FSM_TEST_OK;
        }
        if (!good) std::abort();
        if (i % 10 == 0) cluster.renew();
        std::string stats = cluster.query("stats").output;
        std::uint64_t counts[6], at = 0;
        for (std::uint64_t &count : counts) {
            at = stats.find(':', at) + 1;
            count = std::stoull(stats.substr(at));
        }
        if (counts[0] + counts[1] + counts[2] + counts[3] != pushed - done - discarded) std::abort();
        if (counts[4] != pushed || counts[5] != done) std::abort();
    }
    if (done == 0 || discarded == 0) std::abort();
}

void foreign_snapshots_are_rejected() {
    Cluster cluster;
    cluster.apply("push q 1 0 kept");
    std::string good = cluster.snapshot();
    for (std::size_t size = 0; size < good.size(); size++)
        RAFT_FSM_EXPECT(cluster.restore(good.substr(0, size)), rejected("the snapshot is too short"));
    RAFT_FSM_EXPECT(cluster.restore(good + "x"), rejected("bytes follow the snapshot"));
    std::string wrong = good;
    wrong[3] = '2';
    RAFT_FSM_EXPECT(cluster.restore(wrong), rejected("not a snapshot that this machine can read"));
    wrong = good;
    wrong[32] = 9; // The state of the first job.
    RAFT_FSM_EXPECT(cluster.restore(wrong), rejected("a job in the snapshot has no sound state"));
    RAFT_FSM_EXPECT(cluster.query("payload 1"), ok("kept"));
}

} // namespace

int main() {
    jobs_are_taken_in_the_order_in_which_they_were_pushed();
    a_job_that_failed_keeps_its_place();
    a_lease_ends_at_its_deadline_and_not_before();
    an_old_lease_is_never_good_again_even_after_a_requeue();
    many_jobs_are_settled_in_pieces();
    payloads_are_any_bytes_up_to_the_limit();
    whatever_happens_no_job_is_lost();
    foreign_snapshots_are_rejected();
    std::puts("all tests passed");
}
