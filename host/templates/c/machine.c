/* A counter: commands are decimal numbers, which are added; an empty query gives the sum. */
#define RAFT_FSM_IMPLEMENTATION
#include "sdk/raft_fsm.h"

/* All that survives a call. */
static struct {
    int64_t sum;
} state;

/* At most 18 digits, which cannot overflow. */
static bool parse(fsm_slice text, int64_t *number) {
    bool negative = text.size > 0 && text.data[0] == '-';
    fsm_slice digits = {text.data + negative, text.size - negative};
    uint64_t magnitude;
    if (digits.size > 18 || !fsm_parse_u64(digits, UINT64_MAX, &magnitude)) return false;
    *number = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    return true;
}

/* Only the log decides: no clock, no randomness and no order but those of the SDK and the command. */
static fsm_status apply(fsm_slice command) {
    int64_t number;
    if (!parse(command, &number))
        return fsm_reject("a command is a decimal number of at most 18 digits, such as 5 or -3");
    if (number > 0 ? state.sum > INT64_MAX - number : state.sum < INT64_MIN - number)
        return fsm_reject("the counter would overflow");
    /* Rejected means unchanged: check first, as above, and change after. */
    state.sum += number;
    fsm_put_signed(state.sum);
    return FSM_OK;
}

static fsm_status query(fsm_slice question) {
    if (question.size > 0) return fsm_reject("a query of the counter is empty");
    fsm_put_signed(state.sum);
    return FSM_OK;
}

/* Snapshots are versioned: the 1 of the magic. A later release must read what this one wrote. */
static void snapshot(void) {
    fsm_put("CNT1");
    fsm_put_i64(state.sum);
}

static fsm_status restore(fsm_reader *in) {
    fsm_expect(in, "CNT1");
    state.sum = fsm_get_i64(in);
    return fsm_end(in);
}

FSM_MACHINE(FSM_STATE(state), .apply = apply, .query = query, .snapshot = snapshot, .restore = restore)
