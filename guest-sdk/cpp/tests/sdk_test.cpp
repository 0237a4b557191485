// Tests of the SDK, through the probe and directly.
#define RAFT_FSM_CLASSES
#define RAFT_FSM_RULES
#define RAFT_FSM_VERSIONS
#define RAFT_FSM_ADOPT
#include "../raft_fsm.hpp"

#include <cstdio>

using fsm::test::Cluster;
using fsm::test::ok;
using fsm::test::rejected;
using fsm::test::trapped;

namespace {

void require(bool holds, const char *what) {
    if (holds) return;
    std::fprintf(stderr, "does not hold: %s\n", what);
    std::abort();
}
#define REQUIRE(condition) require(condition, #condition)

void words_end_at_one_space() {
    std::string_view rest = "set  a b";
    REQUIRE(fsm::word(rest) == "set" && rest == " a b");
    REQUIRE(fsm::word(rest).empty() && fsm::word(rest) == "a" && fsm::word(rest) == "b");
    REQUIRE(rest.empty() && fsm::word(rest).empty());
    rest = {};
    REQUIRE(fsm::word(rest).empty());
}

void numbers_are_parsed_to_the_last_digit() {
    REQUIRE(fsm::parse_u64("18446744073709551615", UINT64_MAX) == UINT64_MAX);
    REQUIRE(fsm::parse_u64("00000000000000000005", 5) == std::uint64_t{5});
    for (std::string_view wrong : {"18446744073709551616", "000000000000000000001", "", "+1", "-1", "1 "})
        REQUIRE(!fsm::parse_u64(wrong, UINT64_MAX));
    REQUIRE(!fsm::parse_u64("6", 5));
    REQUIRE(!fsm::parse_u64(std::string_view("1\0", 2), 5));
    REQUIRE(!fsm::parse_u64({}, 5));
}

void a_call_knows_its_index_and_time() {
    Cluster cluster;
    RAFT_FSM_EXPECT(cluster.apply("index"), ok("2"));
    cluster.advance(1500);
    RAFT_FSM_EXPECT(cluster.apply("time"), ok("1700000001500"));
    RAFT_FSM_EXPECT(cluster.query("index"), ok("3"));
}

void a_command_has_an_actor_and_a_class() {
    Cluster cluster;
    RAFT_FSM_EXPECT(cluster.apply("actor"), ok());
    cluster.actor("alice@example.org");
    RAFT_FSM_EXPECT(cluster.apply("actor"), ok("alice@example.org"));
    RAFT_FSM_EXPECT(cluster.query("actor"), ok());
    RAFT_FSM_EXPECT(cluster.classify("set this"), ok("set"));
    RAFT_FSM_EXPECT(cluster.classify("nothing"), ok());
    RAFT_FSM_EXPECT(cluster.apply("index"), ok("4"));
}

void the_state_has_rules_and_a_format() {
    Cluster cluster;
    RAFT_FSM_EXPECT(cluster.check(), ok());
    RAFT_FSM_EXPECT(cluster.apply("set broken"), ok("6"));
    RAFT_FSM_EXPECT(cluster.check(), rejected("the state is broken"));
    RAFT_FSM_EXPECT(cluster.state_version(), ok("probe/1"));
    RAFT_FSM_EXPECT(cluster.restores("probe/1"), ok());
    RAFT_FSM_EXPECT(cluster.restores("kv/1"), rejected("not a format of the probe: kv/1"));
}

void the_memory_of_another_module_is_taken_over() {
    Cluster cluster;
    RAFT_FSM_EXPECT(cluster.apply("set mine"), ok("4"));
    const fsm_test_global globals[] = {{FSM_I32, {5}}, {FSM_F64, {1, 2, 3}}};
    std::string module(32, 'm');
    RAFT_FSM_EXPECT(cluster.adopt(module, "too short", globals, 2), rejected("the old memory ends too early"));
    RAFT_FSM_EXPECT(cluster.query("get"), ok("mine"));
    RAFT_FSM_EXPECT(cluster.adopt(module, "a memory of 20 bytes", globals, 2), ok());
    std::string expected = module + '\x14' + std::string(7, '\0') + "a memory of 20 b" + std::string(1, '\0') + '\5' +
                           std::string(15, '\0') + "\3\1\2\3" + std::string(13, '\0');
    RAFT_FSM_EXPECT(cluster.query("get"), ok(expected));
    cluster.renew();
}

void random_bytes_are_the_same_for_the_same_call() {
    std::string first;
    {
        Cluster cluster;
        first = cluster.apply("random 32").output;
        REQUIRE(first.size() == 64);
        REQUIRE(cluster.query("random 32").output != first);
        REQUIRE(cluster.apply("random 32").output != first);
    }
    Cluster again;
    RAFT_FSM_EXPECT(again.apply("random 32"), ok(first));
}

void events_count_only_if_accepted() {
    Cluster cluster;
    RAFT_FSM_EXPECT(cluster.apply("emit greeting hello there"), ok());
    RAFT_FSM_EXPECT(cluster.events(), "greeting hello there\n");
    RAFT_FSM_EXPECT(cluster.apply("emit-reject greeting never"), rejected("no"));
    RAFT_FSM_EXPECT(cluster.events(), "");
    RAFT_FSM_EXPECT(cluster.apply("log warn careful now"), ok());
    RAFT_FSM_EXPECT(cluster.logs(), "warn careful now\n");
}

void a_panic_is_logged_and_undone() {
    Cluster cluster;
    RAFT_FSM_EXPECT(cluster.apply("set before"), ok("6"));
    RAFT_FSM_EXPECT(cluster.apply("trap"), trapped());
    RAFT_FSM_EXPECT(cluster.logs(), "error trapped as asked\n");
    RAFT_FSM_EXPECT(cluster.query("trap"), trapped());
    RAFT_FSM_EXPECT(cluster.query("get"), ok("before"));
}

void answers_and_snapshots_of_any_size_are_whole() {
    Cluster cluster;
    for (std::size_t size : {0, 1, 4087, 4088, 4089, 4096, 4097, 12345, 1000000}) {
        std::string expected(size, '\0');
        for (std::size_t i = 0; i < size; i++) expected[i] = static_cast<char>(i % 251);
        RAFT_FSM_EXPECT(cluster.apply("fill " + std::to_string(size)), ok(std::to_string(size)));
        cluster.renew();
        RAFT_FSM_EXPECT(cluster.query("get"), ok(expected));
    }
}

void foreign_snapshots_are_rejected() {
    const std::pair<std::string, const char *> cases[] = {
        {"", "the snapshot is too short"},
        {"PRB", "the snapshot is too short"},
        {std::string("PRB2\0\0\0\0", 8), "not a snapshot that this machine can read"},
        {std::string("PRB1\x02\0\0\0x", 9), "the snapshot is too short"},
        {"PRB1\xff\xff\xff\xffx", "the snapshot is too short"},
        {std::string("PRB1\x01\0\0\0xy", 10), "bytes follow the snapshot"},
    };
    Cluster cluster;
    RAFT_FSM_EXPECT(cluster.apply("set kept"), ok("4"));
    for (const auto &[bytes, reason] : cases) {
        RAFT_FSM_EXPECT(cluster.restore(bytes), rejected(reason));
        RAFT_FSM_EXPECT(cluster.query("get"), ok("kept"));
    }
    RAFT_FSM_EXPECT(cluster.restore(std::string("PRB1\x02\0\0\0hi", 10)), ok());
    RAFT_FSM_EXPECT(cluster.query("get"), ok("hi"));
}

void what_is_unknown_is_told() {
    Cluster cluster;
    RAFT_FSM_EXPECT(cluster.apply(""), rejected("unknown: "));
    RAFT_FSM_EXPECT(cluster.query("set x"), rejected("unknown: set"));
}

} // namespace

int main() {
    words_end_at_one_space();
    numbers_are_parsed_to_the_last_digit();
    a_call_knows_its_index_and_time();
    a_command_has_an_actor_and_a_class();
    the_state_has_rules_and_a_format();
    the_memory_of_another_module_is_taken_over();
    random_bytes_are_the_same_for_the_same_call();
    events_count_only_if_accepted();
    a_panic_is_logged_and_undone();
    answers_and_snapshots_of_any_size_are_whole();
    foreign_snapshots_are_rejected();
    what_is_unknown_is_told();
    std::puts("all tests passed");
}
