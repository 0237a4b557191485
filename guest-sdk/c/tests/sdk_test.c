/* Tests of the SDK, through the probe and directly. */
#define RAFT_FSM_CLASSES
#define RAFT_FSM_RULES
#define RAFT_FSM_VERSIONS
#define RAFT_FSM_ADOPT
#include "../raft_fsm.h"

#include <stdio.h>

#define EXPECT(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

static fsm_slice slice(const char *data, size_t size) {
    fsm_slice made = {data, size};
    return made;
}

static void numbers_are_parsed_to_the_last_digit(void) {
    uint64_t number = 7;
    EXPECT(fsm_parse_u64(fsm_text("18446744073709551615"), UINT64_MAX, &number) && number == UINT64_MAX);
    EXPECT(fsm_parse_u64(fsm_text("00000000000000000005"), 5, &number) && number == 5);
    EXPECT(!fsm_parse_u64(fsm_text("18446744073709551616"), UINT64_MAX, &number));
    EXPECT(!fsm_parse_u64(fsm_text("99999999999999999999"), UINT64_MAX, &number));
    EXPECT(!fsm_parse_u64(fsm_text("000000000000000000001"), UINT64_MAX, &number));
    EXPECT(!fsm_parse_u64(fsm_text("6"), 5, &number));
    EXPECT(!fsm_parse_u64(fsm_text(""), UINT64_MAX, &number));
    EXPECT(!fsm_parse_u64(fsm_text("+1"), UINT64_MAX, &number));
    EXPECT(!fsm_parse_u64(slice("1\0", 2), UINT64_MAX, &number));
    EXPECT(number == 5);
}

static void words_end_at_one_space(void) {
    fsm_slice rest = fsm_text("set  a b");
    EXPECT(fsm_is(fsm_word(&rest), "set"));
    EXPECT(fsm_is(rest, " a b"));
    EXPECT(fsm_is(fsm_word(&rest), ""));
    EXPECT(fsm_is(fsm_word(&rest), "a"));
    EXPECT(fsm_is(fsm_word(&rest), "b"));
    EXPECT(rest.size == 0 && fsm_word(&rest).size == 0);
    rest = slice(NULL, 0);
    EXPECT(fsm_word(&rest).size == 0);
}

static void slices_are_ordered_by_bytes_and_size(void) {
    EXPECT(fsm_compare(fsm_text("a"), fsm_text("b")) < 0);
    EXPECT(fsm_compare(fsm_text("a"), fsm_text("aa")) < 0);
    EXPECT(fsm_compare(fsm_text("\xff"), fsm_text("a")) > 0);
    EXPECT(fsm_compare(slice(NULL, 0), fsm_text("")) == 0);
}

static void decimals_have_all_their_digits(void) {
    fsm_test_begin();
    EXPECT(fsm_test_apply(fsm_text("echo")).output.size == 0);
    fsm_expect_apply("index", "3");
    fsm_expect_apply("time", "1700000000000");
    fsm_test_advance(1500);
    fsm_expect_apply("time", "1700000001500");
    fsm_expect_query("index", "5");
}

static void a_command_has_an_actor_and_a_class(void) {
    fsm_test_begin();
    fsm_expect_apply("actor", "");
    fsm_test_actor("alice@example.org");
    fsm_expect_apply("actor", "alice@example.org");
    fsm_expect_query("actor", "");
    fsm_expect_class("set this", "set");
    fsm_expect_class("nothing", "");
    fsm_expect_class("", "");
    fsm_expect_apply("index", "4");
    fsm_test_begin();
    fsm_expect_apply("actor", "");
}

static void the_state_has_rules_and_a_format(void) {
    fsm_test_begin();
    fsm_expect_check("");
    fsm_expect_apply("set broken", "6");
    fsm_expect_check("the state is broken");
    fsm_expect_query("get", "broken");
    EXPECT(fsm_is(fsm_test_state_version().output, "probe/1"));
    EXPECT(fsm_test_restores(fsm_text("probe/1")).kind == FSM_TEST_OK);
    fsm_outcome refused = fsm_test_restores(fsm_text("kv/1"));
    EXPECT(refused.kind == FSM_TEST_REJECTED && fsm_is(refused.output, "not a format of the probe: kv/1"));
}

static void the_memory_of_another_module_is_taken_over(void) {
    unsigned char module[32], expected[90];
    const fsm_test_global globals[] = {{FSM_I64, {1, 2, 3}}};
    fsm_test_begin();
    fsm_expect_apply("set mine", "4");
    memset(module, 7, sizeof module);
    fsm_outcome refused = fsm_test_adopt(module, fsm_text("too short"), globals, 1);
    EXPECT(refused.kind == FSM_TEST_REJECTED && fsm_is(refused.output, "the old memory ends too early"));
    fsm_expect_query("get", "mine");
    EXPECT(fsm_test_adopt(module, fsm_text("a memory of 20 bytes"), globals, 1).kind == FSM_TEST_OK);
    memset(expected, 0, sizeof expected);
    memset(expected, 7, 32);
    expected[32] = 20;
    memcpy(expected + 40, "a memory of 20 b", 16);
    memcpy(expected + 56, "\1\1\2\3", 4);
    expected[73] = 255;
    fsm_slice state = fsm_test_query(fsm_text("get")).output;
    EXPECT(state.size == sizeof expected && memcmp(state.data, expected, sizeof expected) == 0);
    fsm_test_renew();
}

static void what_lies_outside_of_the_old_memory_is_an_error(void) {
    fsm_old old = {{0}, 100, NULL};
    EXPECT(fsm_old_has(&old, 100, 0) && fsm_old_has(&old, 0, 100) && fsm_old_has(&old, 99, 1));
    EXPECT(!fsm_old_has(&old, 99, 2));
    for (int i = 0; i < 3; i++) {
        static const uint64_t at[] = {101, UINT64_MAX, 1}, size[] = {0, 2, UINT64_MAX};
        fsm_old other = {{0}, 100, NULL};
        EXPECT(!fsm_old_has(&other, at[i], size[i]) && other.problem != NULL);
        EXPECT(fsm_old_u32(&other, 0) == 0);
    }
}

static void random_bytes_are_the_same_for_the_same_call(void) {
    char first[65];
    fsm_test_begin();
    memcpy(first, fsm_test_apply(fsm_text("random 32")).output.data, 65);
    EXPECT(strlen(first) == 64);
    EXPECT(strcmp(fsm_test_query(fsm_text("random 32")).output.data, first) != 0);
    EXPECT(strcmp(fsm_test_apply(fsm_text("random 32")).output.data, first) != 0);
    fsm_test_begin();
    fsm_expect_apply("random 32", first);
}

static void events_count_only_if_accepted(void) {
    fsm_test_begin();
    fsm_expect_apply("emit greeting hello there", "");
    fsm_expect_text(fsm_test_events(), "greeting hello there\n");
    fsm_expect_rejected("emit-reject greeting never", "no");
    fsm_expect_text(fsm_test_events(), "");
    fsm_expect_apply("log warn careful now", "");
    fsm_expect_text(fsm_test_logs(), "warn careful now\n");
}

static void a_panic_is_logged_and_undone(void) {
    fsm_test_begin();
    fsm_expect_apply("set before", "6");
    EXPECT(fsm_test_apply(fsm_text("trap")).kind == FSM_TEST_TRAPPED);
    fsm_expect_text(fsm_test_logs(), "error trapped as asked\n");
    EXPECT(fsm_test_query(fsm_text("trap")).kind == FSM_TEST_TRAPPED);
    fsm_expect_query("get", "before");
}

static void answers_and_snapshots_of_any_size_are_whole(void) {
    static const char *const sizes[] = {"0", "1", "4087", "4088", "4089", "4096", "4097", "12345", "16777216"};
    char command[32];
    fsm_test_begin();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(command, sizeof command, "fill %s", sizes[i]);
        fsm_expect_apply(command, sizes[i]);
        fsm_test_renew();
        fsm_expect_query("length", sizes[i]);
        fsm_slice answer = fsm_test_query(fsm_text("get")).output;
        EXPECT(answer.size == (size_t)strtoul(sizes[i], NULL, 10));
        for (size_t at = 0; at < answer.size; at++) EXPECT((unsigned char)answer.data[at] == at % 251);
    }
}

static void foreign_snapshots_are_rejected(void) {
    static const struct {
        const char *bytes;
        size_t size;
        const char *reason;
    } cases[] = {
        {"", 0, "the snapshot is too short"},
        {"PRB", 3, "the snapshot is too short"},
        {"PRB2\0\0\0\0", 8, "not a snapshot that this machine can read"},
        {"PRB1\0\0\0", 7, "the snapshot is too short"},
        {"PRB1\x02\0\0\0x", 9, "the snapshot is too short"},
        {"PRB1\xff\xff\xff\xffx", 9, "the snapshot is too short"},
        {"PRB1\x01\0\0\0xy", 10, "bytes follow the snapshot"},
    };
    fsm_test_begin();
    fsm_expect_apply("set kept", "4");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fsm_outcome outcome = fsm_test_restore(slice(cases[i].bytes, cases[i].size));
        fsm_test_expect(__FILE__, __LINE__, outcome, FSM_TEST_REJECTED, cases[i].reason);
        fsm_expect_query("get", "kept");
    }
    EXPECT(fsm_test_restore(slice("PRB1\x02\0\0\0hi", 10)).kind == FSM_TEST_OK);
    fsm_expect_query("get", "hi");
}

/* The probe's format has one snapshot for each state, so what is taken must be written again as it was. */
static void damaged_snapshots_are_refused_or_sound(void) {
    static char damaged[5000];
    uint64_t random = 1;
    fsm_test_begin();
    fsm_expect_apply("fill 4900", "4900");
    fsm_slice whole = fsm_test_snapshot();
    EXPECT(whole.size == 4908);
    memcpy(damaged, whole.data, whole.size);
    for (size_t cut = 0; cut < 4908; cut++) EXPECT(fsm_test_restore(slice(damaged, cut)).kind == FSM_TEST_REJECTED);
    for (int i = 0; i < 20000; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        size_t at = (random >> 33) % 2 == 0 ? (random >> 34) % 12 : (random >> 34) % sizeof damaged;
        size_t size = (random >> 50) % 2 == 0 ? 4908 : (random >> 51) % (sizeof damaged + 1);
        char before = damaged[at];
        damaged[at] = (char)(random >> 56);
        fsm_outcome outcome = fsm_test_restore(slice(damaged, size));
        EXPECT(outcome.kind != FSM_TEST_TRAPPED);
        fsm_slice now = fsm_test_snapshot();
        if (outcome.kind == FSM_TEST_OK) EXPECT(now.size == size && memcmp(now.data, damaged, size) == 0);
        damaged[at] = before;
    }
}

static void what_is_unknown_is_told(void) {
    fsm_test_begin();
    fsm_expect_rejected("", "unknown: ");
    fsm_expect_rejected("dance now", "unknown: dance");
    fsm_expect_query_rejected("set x", "unknown: set");
}

int main(void) {
    numbers_are_parsed_to_the_last_digit();
    words_end_at_one_space();
    slices_are_ordered_by_bytes_and_size();
    decimals_have_all_their_digits();
    a_command_has_an_actor_and_a_class();
    the_state_has_rules_and_a_format();
    the_memory_of_another_module_is_taken_over();
    what_lies_outside_of_the_old_memory_is_an_error();
    random_bytes_are_the_same_for_the_same_call();
    events_count_only_if_accepted();
    a_panic_is_logged_and_undone();
    answers_and_snapshots_of_any_size_are_whole();
    foreign_snapshots_are_rejected();
    damaged_snapshots_are_refused_or_sound();
    what_is_unknown_is_told();
    puts("all tests passed");
    return fsm_test_end();
}
