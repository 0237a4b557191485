/* Random commands against a model that forgets nothing, in a limiter so small that it is full most of the time. */
#include "table.h"

#include <stdio.h>

#define POLICIES 3
#define KEYS (2 * BUCKETS_MAX)
#define STEPS 60000

static const char *const names[POLICIES] = {"fast", "odd", "slow"};

static struct {
    uint64_t tokens, period_ms, burst;
} policies[POLICIES];

static struct {
    unsigned __int128 parts;
    uint64_t at_ms;
} levels[POLICIES][KEYS]; /* What was there at that time, in parts of a token. */

static uint64_t now_ms;
static uint64_t random_state;

static uint64_t below(uint64_t limit) {
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (random_state >> 33) % limit;
}

static unsigned __int128 capacity_of(size_t p) { return (unsigned __int128)policies[p].burst * policies[p].period_ms; }

static unsigned __int128 level_of(size_t p, size_t key) {
    unsigned __int128 parts =
        levels[p][key].parts + (unsigned __int128)(now_ms - levels[p][key].at_ms) * policies[p].tokens;
    return parts < capacity_of(p) ? parts : capacity_of(p);
}

static void set_level(size_t p, size_t key, unsigned __int128 parts) {
    levels[p][key].parts = parts;
    levels[p][key].at_ms = now_ms;
}

static void define(size_t p) {
    char command[128];
    uint64_t tokens = 1 + below(7), period_ms = 1 + below(p == 2 ? 100000 : 50), burst = 1 + below(20);
    bool is_same = tokens == policies[p].tokens && period_ms == policies[p].period_ms && burst == policies[p].burst;
    snprintf(command, sizeof command, "policy %s %u %u %u", names[p], (unsigned)tokens, (unsigned)period_ms,
             (unsigned)burst);
    FSM_CHECK(fsm_test_apply(fsm_text(command)).kind == FSM_TEST_OK);
    policies[p].tokens = tokens;
    policies[p].period_ms = period_ms;
    policies[p].burst = burst;
    for (size_t key = 0; key < KEYS && !is_same; key++) set_level(p, key, capacity_of(p));
}

static unsigned buckets(void) {
    unsigned policies_there = 0, buckets_there = 0;
    int found = sscanf(fsm_test_query(fsm_text("stats")).output.data, "{\"policies\":%u,\"buckets\":%u", &policies_there,
                       &buckets_there);
    FSM_CHECK(found == 2);
    return buckets_there;
}

static uint64_t wait_ms(size_t p, unsigned __int128 parts) {
    return (uint64_t)((parts + policies[p].tokens - 1) / policies[p].tokens);
}

static void told(char *text, size_t size, const char *head, size_t p, unsigned __int128 parts) {
    snprintf(text, size, "%s\"remaining\":%llu,\"full_in_ms\":%llu}", head,
             (unsigned long long)(parts / policies[p].period_ms),
             (unsigned long long)wait_ms(p, capacity_of(p) - parts));
}

static void take(size_t p, size_t key, unsigned *full) {
    char command[128], head[128], expected[256];
    uint64_t count = 1 + below(policies[p].burst);
    unsigned __int128 parts = level_of(p, key), cost = (unsigned __int128)count * policies[p].period_ms;
    snprintf(command, sizeof command, "take %s k%u %u", names[p], (unsigned)key, (unsigned)count);
    fsm_outcome outcome = fsm_test_apply(fsm_text(command));
    if (outcome.kind == FSM_TEST_REJECTED) {
        FSM_CHECK(fsm_is(outcome.output, "too many keys are in use; see the query stats, and try the command sweep"));
        FSM_CHECK(parts == capacity_of(p));
        FSM_CHECK(buckets() == BUCKETS_MAX);
        ++*full;
        return;
    }
    if (parts < cost) {
        snprintf(head, sizeof head, "{\"allowed\":false,\"retry_after_ms\":%llu,",
                 (unsigned long long)wait_ms(p, cost - parts));
        told(expected, sizeof expected, head, p, parts);
    } else {
        set_level(p, key, parts - cost);
        told(expected, sizeof expected, "{\"allowed\":true,", p, parts - cost);
    }
    fsm_test_expect(__FILE__, __LINE__, outcome, FSM_TEST_OK, expected);
}

static void give(size_t p, size_t key) {
    char command[128], head[64], expected[256];
    uint64_t count = 1 + below(policies[p].burst);
    unsigned __int128 parts = level_of(p, key) + (unsigned __int128)count * policies[p].period_ms;
    if (parts > capacity_of(p)) parts = capacity_of(p);
    snprintf(command, sizeof command, "give %s k%u %u", names[p], (unsigned)key, (unsigned)count);
    snprintf(head, sizeof head, "{\"given\":%u,", (unsigned)count);
    told(expected, sizeof expected, head, p, parts);
    fsm_expect_apply(command, expected);
    set_level(p, key, parts);
}

static void step(unsigned *full) {
    char command[128];
    size_t p = (size_t)below(POLICIES), key = (size_t)below(KEYS);
    uint64_t choice = below(1000);
    if (choice < 2) {
        define(p);
    } else if (choice < 10) {
        fsm_test_renew();
    } else if (choice < 12) {
        FSM_CHECK(fsm_test_apply(fsm_text("sweep")).kind == FSM_TEST_OK);
    } else if (choice < 40) {
        snprintf(command, sizeof command, "reset %s k%u", names[p], (unsigned)key);
        FSM_CHECK(fsm_test_apply(fsm_text(command)).kind == FSM_TEST_OK);
        set_level(p, key, capacity_of(p));
    } else if (choice < 100) {
        give(p, key);
    } else if (choice < 200) {
        uint64_t passed_ms = below(3);
        fsm_test_advance(passed_ms);
        now_ms += passed_ms;
    } else {
        take(p, key, full);
    }
}

int main(void) {
    unsigned full = 0, most = 0;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        random_state = seed;
        fsm_test_begin();
        memset(policies, 0, sizeof policies);
        for (size_t p = 0; p < POLICIES; p++) define(p);
        for (unsigned i = 0; i < STEPS / 4; i++) {
            step(&full);
            unsigned now = buckets();
            FSM_CHECK(now <= BUCKETS_MAX);
            if (now > most) most = now;
        }
    }
    FSM_CHECK(most == BUCKETS_MAX && full > 100);
    printf("%d random commands agree with the model; %u found it full\n", STEPS, full);
    return fsm_test_end();
}
