/* A machine that asks for more memory than there is. The Makefile links it so that memory ends at 1 MiB, beyond which
 * `memory.grow` answers -1, as it does at a cluster's limit; memory_limit.script says what must come of it. */
#define RAFT_FSM_IMPLEMENTATION
#include "../raft_fsm.h"

#define BLOCK (16384 - 16)
#define MOST 100

static struct {
    unsigned char *blocks[MOST]; /* Each is full of its own number. */
    uint32_t count;
} state;

static void forget(uint32_t from) {
    for (uint32_t i = from; i < state.count; i++) fsm_free(state.blocks[i]);
    state.count = from;
}

static bool hold(uint64_t more) {
    uint32_t before = state.count;
    for (uint64_t i = 0; i < more; i++) {
        unsigned char *block = state.count < MOST ? (unsigned char *)fsm_alloc(BLOCK) : NULL;
        if (block == NULL) {
            forget(before);
            return false;
        }
        memset(block, (int)state.count, BLOCK);
        state.blocks[state.count++] = block;
    }
    return true;
}

static void check_blocks(void) {
    for (uint32_t i = 0; i < state.count; i++)
        for (uint32_t at = 0; at < BLOCK; at++) FSM_CHECK(state.blocks[i][at] == i);
}

static fsm_status apply(fsm_slice command) {
    fsm_slice word = fsm_word(&command);
    uint64_t number = 0;
    if (!fsm_parse_u64(command, UINT32_MAX, &number)) return fsm_reject("a command is a word and a number");
    if (fsm_is(word, "hold")) {
        if (!hold(number)) return fsm_reject("there is no memory for so many blocks");
    } else if (fsm_is(word, "must-hold")) {
        if (!hold(number)) fsm_panic("there is no memory");
    } else if (fsm_is(word, "careless")) { /* Writes first, so that the host must undo it. */
        for (uint32_t i = 0; i < state.count; i++) memset(state.blocks[i], 0xff, BLOCK);
        void *larger = fsm_realloc(state.blocks[0], number);
        FSM_CHECK(larger != NULL);
        state.blocks[0] = (unsigned char *)larger;
    } else if (fsm_is(word, "enlarge")) {
        if (state.count == 0) return fsm_reject("there is no block");
        void *larger = fsm_realloc(state.blocks[0], number);
        if (larger == NULL) return fsm_reject("there is no memory for a larger block");
        state.blocks[0] = (unsigned char *)larger;
    } else if (fsm_is(word, "keep")) {
        if (number < state.count) forget((uint32_t)number);
    } else {
        return fsm_reject("a command is hold, must-hold, careless, enlarge or keep");
    }
    check_blocks();
    fsm_put_decimal(state.count);
    return FSM_OK;
}

static fsm_status query(fsm_slice question) {
    (void)question;
    check_blocks();
    fsm_put_decimal(state.count);
    return FSM_OK;
}

static void snapshot(void) {
    fsm_put("MEM1");
    fsm_put_u32(state.count);
}

static fsm_status restore(fsm_reader *in) {
    fsm_expect(in, "MEM1");
    uint32_t count = fsm_get_count(in, MOST, 0);
    if (!hold(count)) fsm_fail(in, "there is no memory for so many blocks");
    return fsm_end(in);
}

FSM_MACHINE(FSM_STATE(state), .apply = apply, .query = query, .snapshot = snapshot, .restore = restore)
