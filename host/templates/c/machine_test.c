/* Tests of machine.c, built by the host's own compiler: `make test`. */
#include "sdk/raft_fsm.h"

#include <stdio.h>

#define NO_NUMBER "a command is a decimal number of at most 18 digits, such as 5 or -3"

static void numbers_add_up(void) {
    fsm_test_begin();
    fsm_expect_apply("5", "5");
    fsm_expect_apply("-3", "2");
    fsm_expect_rejected("five", NO_NUMBER);
    fsm_expect_rejected("", NO_NUMBER);
    fsm_expect_rejected("-", NO_NUMBER);
    fsm_expect_rejected("1234567890123456789", NO_NUMBER);
    fsm_expect_query("", "2");
    fsm_expect_query_rejected("5", "a query of the counter is empty");
}

static void the_sum_does_not_overflow(void) {
    fsm_slice most = {"CNT1\xff\xff\xff\xff\xff\xff\xff\x7f", 12};
    fsm_test_begin();
    fsm_test_restore(most);
    fsm_expect_rejected("1", "the counter would overflow");
    fsm_expect_apply("-7", "9223372036854775800");
}

static void the_sum_survives_an_upgrade(void) {
    fsm_test_begin();
    fsm_expect_apply("999999999999999999", "999999999999999999");
    fsm_test_renew();
    fsm_expect_query("", "999999999999999999");
    fsm_test_expect(__FILE__, __LINE__, fsm_test_restore(fsm_text("CNT1short")), FSM_TEST_REJECTED,
                    "the snapshot is too short");
    fsm_expect_query("", "999999999999999999");
}

int main(void) {
    numbers_add_up();
    the_sum_does_not_overflow();
    the_sum_survives_an_upgrade();
    puts("all tests passed");
    return fsm_test_end();
}
