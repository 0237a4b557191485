/* Tests of the limiter, built by the host's own compiler: `make test`. */
#include "table.h"

#include <stdio.h>

static char buffer[256];

static const char *format(const char *pattern, unsigned number) {
    snprintf(buffer, sizeof buffer, pattern, number);
    return buffer;
}

static void tokens_run_out_and_come_back(void) {
    fsm_test_begin();
    fsm_expect_rejected("take api alice", "there is no policy with this name");
    fsm_expect_apply("policy api 10 1000 5", "{\"policy\":\"api\",\"tokens\":10,\"period_ms\":1000,\"burst\":5}");
    fsm_expect_apply("take api alice 4", "{\"allowed\":true,\"remaining\":1,\"full_in_ms\":400}");
    fsm_expect_apply("take api alice 2",
                     "{\"allowed\":false,\"retry_after_ms\":100,\"remaining\":1,\"full_in_ms\":400}");
    fsm_expect_apply("take api bob", "{\"allowed\":true,\"remaining\":4,\"full_in_ms\":100}");
    fsm_test_advance(99);
    fsm_expect_apply("take api alice 2",
                     "{\"allowed\":false,\"retry_after_ms\":1,\"remaining\":1,\"full_in_ms\":301}");
    fsm_test_renew();
    fsm_test_advance(1);
    fsm_expect_apply("take api alice 2", "{\"allowed\":true,\"remaining\":0,\"full_in_ms\":500}");
    fsm_expect_query("stats", "{\"policies\":1,\"buckets\":1,\"allowed\":3,\"denied\":2}");
    fsm_expect_rejected("take api alice 6", "the number of tokens is from 1 to the policy's burst, 5");
    fsm_expect_rejected("take api alice 0", "the number of tokens is from 1 to the policy's burst, 5");
    fsm_expect_rejected("take api  5", "a key has 1 to 128 bytes, without spaces and control characters");
}

/* 7 tokens in 1,000 ms: after 1,000 steps of 1 ms it is exactly 7, whatever was taken on the way. */
static void nothing_is_rounded(void) {
    fsm_test_begin();
    fsm_test_apply(fsm_text("policy p 7 1000 100"));
    fsm_test_apply(fsm_text("take p k 100"));
    unsigned taken = 0;
    for (unsigned ms = 0; ms < 1000; ms++) {
        fsm_test_advance(1);
        fsm_outcome outcome = fsm_test_apply(fsm_text("take p k"));
        taken += outcome.output.size > 15 && memcmp(outcome.output.data, "{\"allowed\":true", 15) == 0;
    }
    fsm_expect_text(format("%u", taken), "7");
    fsm_expect_query("peek p k", "{\"allowed\":false,\"retry_after_ms\":143,\"remaining\":0,\"full_in_ms\":14286}");
}

static void giving_back_never_exceeds_the_burst(void) {
    fsm_test_begin();
    fsm_test_apply(fsm_text("policy p 1 1000 10"));
    fsm_expect_apply("take p k 5", "{\"allowed\":true,\"remaining\":5,\"full_in_ms\":5000}");
    fsm_expect_apply("give p k 2", "{\"given\":2,\"remaining\":7,\"full_in_ms\":3000}");
    fsm_expect_apply("give p k 10", "{\"given\":10,\"remaining\":10,\"full_in_ms\":0}");
    fsm_expect_query("stats", "{\"policies\":1,\"buckets\":0,\"allowed\":1,\"denied\":0}");
    fsm_expect_apply("give p other", "{\"given\":1,\"remaining\":10,\"full_in_ms\":0}");
    fsm_test_apply(fsm_text("take p k 5"));
    fsm_expect_apply("reset p k", "{\"reset\":true}");
    fsm_expect_apply("reset p k", "{\"reset\":false}");
}

static void another_policy_of_the_same_name_begins_anew(void) {
    fsm_test_begin();
    fsm_test_apply(fsm_text("policy p 1 1000 10"));
    fsm_test_apply(fsm_text("take p k 10"));
    fsm_test_apply(fsm_text("policy p 1 1000 10"));
    fsm_expect_query("peek p k", "{\"allowed\":false,\"retry_after_ms\":1000,\"remaining\":0,\"full_in_ms\":10000}");
    fsm_test_apply(fsm_text("policy p 2 1000 10"));
    fsm_expect_query("peek p k", "{\"allowed\":true,\"remaining\":10,\"full_in_ms\":0}");
    fsm_expect_apply("sweep", "{\"removed\":1,\"buckets\":0}");
    fsm_expect_apply("drop p", "{\"policy\":\"p\",\"tokens\":2,\"period_ms\":1000,\"burst\":10}");
    fsm_expect_rejected("drop p", "there is no policy with this name");
    fsm_expect_query("policies", "[]");
}

static void policies_are_in_order_and_bounded(void) {
    fsm_test_begin();
    fsm_test_promises = false;
    for (unsigned i = 0; i < 256; i++) {
        const char *command = format("policy p%u 1 1 1", i * 7 % 256);
        FSM_CHECK(fsm_test_apply(fsm_text(command)).kind == FSM_TEST_OK);
    }
    fsm_test_promises = true;
    fsm_expect_rejected("policy more 1 1 1", "there are 256 policies already");
    fsm_expect_rejected("policy a,b 1 1 1", "a policy's name has 1 to 64 of A-Z a-z 0-9 . _ : / @ -");
    const char *numbers = "policy NAME TOKENS PERIOD_MS BURST: TOKENS and BURST are from 1 to 1000000000, PERIOD_MS "
                          "from 1 to 86400000";
    fsm_expect_rejected("policy a 0 1 1", numbers);
    fsm_expect_rejected("policy a 1 86400001 1", numbers);
    fsm_expect_rejected("policy a 1 1 1000000001", numbers);
    fsm_expect_rejected("policy a 1 1 1 1", numbers);
    fsm_expect_apply("policy p255 1000000000 86400000 1000000000",
                     "{\"policy\":\"p255\",\"tokens\":1000000000,\"period_ms\":86400000,\"burst\":1000000000}");
    fsm_expect_apply("take p255 k 1000000000", "{\"allowed\":true,\"remaining\":0,\"full_in_ms\":86400000}");
    fsm_test_advance(86399999);
    fsm_expect_query("peek p255 k 1000000000",
                     "{\"allowed\":false,\"retry_after_ms\":1,\"remaining\":999999988,\"full_in_ms\":1}");
    fsm_test_advance(1);
    fsm_expect_query("peek p255 k 1000000000", "{\"allowed\":true,\"remaining\":1000000000,\"full_in_ms\":0}");
    fsm_test_renew();
}

/* Many keys come and go: the table grows, sweeps, and finds what it must. */
static void keys_that_are_full_again_are_forgotten(void) {
    fsm_test_begin();
    fsm_test_promises = false;
    fsm_test_apply(fsm_text("policy fast 1 1 1"));
    fsm_test_apply(fsm_text("policy slow 1 86400000 1"));
    for (unsigned i = 0; i < 20000; i++) fsm_test_apply(fsm_text(format(i % 2 ? "take fast f%u" : "take slow s%u", i)));
    for (unsigned i = 0; i < 20000; i += 2) {
        fsm_outcome outcome = fsm_test_query(fsm_text(format("peek slow s%u", i)));
        fsm_test_expect(__FILE__, __LINE__, outcome, FSM_TEST_OK,
                        "{\"allowed\":false,\"retry_after_ms\":86400000,\"remaining\":0,\"full_in_ms\":86400000}");
    }
    fsm_expect_query("stats", "{\"policies\":2,\"buckets\":20000,\"allowed\":20000,\"denied\":0}");
    fsm_test_advance(1);
    for (unsigned i = 0; i < 30; i++) fsm_test_apply(fsm_text("sweep"));
    fsm_expect_query("stats", "{\"policies\":2,\"buckets\":10000,\"allowed\":20000,\"denied\":0}");
    fsm_test_renew();
    for (unsigned i = 0; i < 20000; i += 2) {
        fsm_outcome outcome = fsm_test_apply(fsm_text(format("reset slow s%u", i)));
        fsm_test_expect(__FILE__, __LINE__, outcome, FSM_TEST_OK, "{\"reset\":true}");
    }
    fsm_expect_query("stats", "{\"policies\":2,\"buckets\":0,\"allowed\":20000,\"denied\":0}");
    fsm_test_promises = true;
}

static void damaged_snapshots_are_refused(void) {
    static char damaged[4096];
    fsm_test_begin();
    fsm_test_apply(fsm_text("policy p 1 1000 10"));
    fsm_test_apply(fsm_text("take p one 10"));
    fsm_test_apply(fsm_text("take p two 3"));
    fsm_slice whole = fsm_test_snapshot();
    FSM_CHECK(whole.size < sizeof damaged);
    memcpy(damaged, whole.data, whole.size);
    size_t size = whole.size;
    for (size_t cut = 0; cut < size; cut++) {
        fsm_slice part = {damaged, cut};
        FSM_CHECK(fsm_test_restore(part).kind == FSM_TEST_REJECTED);
    }
    /* A flipped bit is refused, or is another sound state: never a crash. */
    for (size_t at = 0; at < size; at++) {
        for (int bit = 0; bit < 8; bit++) {
            fsm_slice all = {damaged, size};
            damaged[at] ^= (char)(1 << bit);
            FSM_CHECK(fsm_test_restore(all).kind != FSM_TEST_TRAPPED);
            damaged[at] ^= (char)(1 << bit);
        }
    }
    fsm_slice all = {damaged, size};
    FSM_CHECK(fsm_test_restore(all).kind == FSM_TEST_OK);
    fsm_expect_query("stats", "{\"policies\":1,\"buckets\":2,\"allowed\":2,\"denied\":0}");
}

/* Ids were once indexes of entries, which begin anew in another cluster: two policies could get the same. */
static void a_backup_in_a_young_cluster_keeps_its_policies_apart(void) {
    static char backup[512];
    fsm_test_begin();
    for (int i = 0; i < 3; i++) fsm_expect_rejected("", "a command is take, give, reset, policy, drop or sweep");
    fsm_test_apply(fsm_text("policy old 1 1000 10"));
    fsm_test_apply(fsm_text("take old k 10"));
    fsm_slice whole = fsm_test_snapshot(), copy = {backup, whole.size};
    FSM_CHECK(whole.size < sizeof backup);
    memcpy(backup, whole.data, whole.size);
    fsm_test_begin();
    FSM_CHECK(fsm_test_restore(copy).kind == FSM_TEST_OK);
    for (unsigned i = 0; i < 8; i++) fsm_test_apply(fsm_text(format("policy new%u 1 1000 10", i)));
    for (unsigned i = 0; i < 8; i++) {
        fsm_outcome outcome = fsm_test_query(fsm_text(format("peek new%u k", i)));
        fsm_test_expect(__FILE__, __LINE__, outcome, FSM_TEST_OK,
                        "{\"allowed\":true,\"remaining\":10,\"full_in_ms\":0}");
    }
    fsm_test_renew();
}

int main(void) {
    tokens_run_out_and_come_back();
    nothing_is_rounded();
    giving_back_never_exceeds_the_burst();
    another_policy_of_the_same_name_begins_anew();
    policies_are_in_order_and_bounded();
    keys_that_are_full_again_are_forgotten();
    damaged_snapshots_are_refused();
    a_backup_in_a_young_cluster_keeps_its_policies_apart();
    puts("all tests passed");
    return fsm_test_end();
}
