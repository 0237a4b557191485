// Tests of machine.cpp, built by the host's own compiler: `make test`.
#include "sdk/raft_fsm.hpp"

#include <cstdio>

using fsm::test::Cluster;
using fsm::test::ok;
using fsm::test::rejected;

namespace {

constexpr std::string_view NO_NUMBER = "a command is a decimal number of at most 18 digits, such as 5 or -3";

void numbers_add_up() {
    Cluster cluster;
    RAFT_FSM_EXPECT(cluster.apply("5"), ok("5"));
    RAFT_FSM_EXPECT(cluster.apply("-3"), ok("2"));
    for (std::string_view wrong : {"five", "", "-", "--5", "+5", "1234567890123456789"})
        RAFT_FSM_EXPECT(cluster.apply(wrong), rejected(NO_NUMBER));
    RAFT_FSM_EXPECT(cluster.query(""), ok("2"));
    RAFT_FSM_EXPECT(cluster.query("5"), rejected("a query of the counter is empty"));
}

void the_sum_does_not_overflow() {
    Cluster cluster;
    RAFT_FSM_EXPECT(cluster.restore("CNT1\xff\xff\xff\xff\xff\xff\xff\x7f"), ok());
    RAFT_FSM_EXPECT(cluster.apply("1"), rejected("the counter would overflow"));
    RAFT_FSM_EXPECT(cluster.apply("-7"), ok("9223372036854775800"));
}

void the_sum_survives_an_upgrade() {
    Cluster cluster;
    RAFT_FSM_EXPECT(cluster.apply("999999999999999999"), ok("999999999999999999"));
    cluster.renew();
    RAFT_FSM_EXPECT(cluster.query(""), ok("999999999999999999"));
    RAFT_FSM_EXPECT(cluster.restore("CNT1short"), rejected("the snapshot is too short"));
    RAFT_FSM_EXPECT(cluster.query(""), ok("999999999999999999"));
}

} // namespace

int main() {
    numbers_add_up();
    the_sum_does_not_overflow();
    the_sum_survives_an_upgrade();
    std::puts("all tests passed");
}
