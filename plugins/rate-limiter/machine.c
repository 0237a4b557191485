/* A rate limiter: token buckets on the log's clock. README.md is the user's page. */
#define RAFT_FSM_IMPLEMENTATION
#include "table.h"

#define POLICIES_MAX 256
#define SWEPT_PER_COMMAND 2
#define SWEPT_TO_MAKE_ROOM 64
#define SWEPT_AT_ONCE 1000

static struct {
    policy policies[POLICIES_MAX]; /* By name. */
    uint32_t policies_count;
    uint64_t definitions; /* Ids of policies are at most this. */
    table table;
    uint64_t allowed, denied;
} state;

/* ---- Policies ---- */

/* The first policy whose name is not before this one. */
static uint32_t position_of(fsm_slice name) {
    uint32_t low = 0, high = state.policies_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (fsm_compare(policy_name(&state.policies[middle]), name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static policy *policy_named(fsm_slice name) {
    uint32_t at = position_of(name);
    bool is_there = at < state.policies_count && fsm_compare(policy_name(&state.policies[at]), name) == 0;
    return is_there ? &state.policies[at] : NULL;
}

static const policy *policy_with(uint64_t id) {
    for (uint32_t i = 0; i < state.policies_count; i++)
        if (state.policies[i].id == id) return &state.policies[i];
    return NULL;
}

static bool is_name(fsm_slice name) {
    if (name.size < 1 || name.size > POLICY_NAME_MAX) return false;
    for (size_t i = 0; i < name.size; i++) {
        char c = name.data[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_letter && c != '.' && c != '_' && c != ':' && c != '/' && c != '@' && c != '-') return false;
    }
    return true;
}

static bool is_key(fsm_slice key) {
    if (key.size < 1 || key.size > KEY_MAX) return false;
    for (size_t i = 0; i < key.size; i++)
        if ((unsigned char)key.data[i] <= ' ' || (unsigned char)key.data[i] == 127) return false;
    return true;
}

static bool is_sound(const policy *policy) {
    return policy->tokens >= 1 && policy->tokens <= TOKENS_MAX && policy->period_ms >= 1 &&
           policy->period_ms <= PERIOD_MS_MAX && policy->burst >= 1 && policy->burst <= TOKENS_MAX;
}

static void put_number(const char *before, uint64_t number) {
    fsm_put(before);
    fsm_put_decimal(number);
}

static void put_policy(const policy *policy) {
    fsm_put("{\"policy\":\"");
    fsm_put_slice(policy_name(policy));
    put_number("\",\"tokens\":", policy->tokens);
    put_number(",\"period_ms\":", policy->period_ms);
    put_number(",\"burst\":", policy->burst);
    fsm_put("}");
}

/* ---- Sweeping: a bucket that is full again need not be kept ---- */

static bool is_idle(const bucket *bucket) {
    const policy *policy = policy_with(bucket->policy_id);
    return policy == NULL || policy_parts_at(policy, bucket, fsm_time_ms()) == policy_capacity(policy);
}

/* Looks at up to `most` buckets, from where the last sweep ended. Returns how many it removed. */
static uint32_t sweep(uint32_t most) {
    table *table = &state.table;
    uint32_t removed = 0;
    if (most > table->count) most = table->count;
    for (uint32_t i = 0; i < most && table->count > 0; i++) {
        if (table->cursor >= table->count) table->cursor = 0;
        bucket *looked_at = &table->buckets[table->cursor];
        if (is_idle(looked_at)) {
            table_remove(table, looked_at);
            removed++;
        } else {
            table->cursor++;
        }
    }
    return removed;
}

/* Whether a sweep would remove at least one; changes nothing. */
static bool has_idle_ahead(uint32_t most) {
    const table *table = &state.table;
    for (uint32_t i = 0; i < most && i < table->count; i++)
        if (is_idle(&table->buckets[(table->cursor + i) % table->count])) return true;
    return false;
}

/* ---- Commands ---- */

/* What `take`, `give`, `reset` and `peek` are about. */
typedef struct {
    const policy *policy;
    fsm_slice key;
    uint64_t count;
    bucket *bucket; /* NULL: full. */
    uint64_t parts; /* Now. */
} target;

/* NAME KEY [N]; false after a rejection. */
static bool parse_target(fsm_slice rest, bool with_count, target *target) {
    fsm_slice name = fsm_word(&rest);
    target->key = fsm_word(&rest);
    target->count = 1;
    target->policy = policy_named(name);
    if (target->policy == NULL) {
        fsm_reject("there is no policy with this name");
        return false;
    }
    if (!is_key(target->key)) {
        fsm_reject("a key has 1 to 128 bytes, without spaces and control characters");
        return false;
    }
    if (rest.size > 0 && !with_count) {
        fsm_reject("too many words");
        return false;
    }
    bool is_number = rest.size == 0 || fsm_parse_u64(rest, target->policy->burst, &target->count);
    if (!is_number || target->count == 0) {
        fsm_reject("the number of tokens is from 1 to the policy's burst, ");
        fsm_put_decimal(target->policy->burst);
        return false;
    }
    target->bucket = table_find(&state.table, target->policy->id, target->key);
    target->parts = target->bucket == NULL ? policy_capacity(target->policy)
                                           : policy_parts_at(target->policy, target->bucket, fsm_time_ms());
    return true;
}

static void put_level(const policy *policy, uint64_t parts) {
    put_number(",\"remaining\":", parts / policy->period_ms);
    put_number(",\"full_in_ms\":", policy_wait_ms(policy, policy_capacity(policy) - parts));
    fsm_put("}");
}

static void put_denied(const target *target, uint64_t cost) {
    put_number("{\"allowed\":false,\"retry_after_ms\":", policy_wait_ms(target->policy, cost - target->parts));
    put_level(target->policy, target->parts);
}

static fsm_status take(fsm_slice rest) {
    target target;
    if (!parse_target(rest, true, &target)) return FSM_REJECTED;
    uint64_t cost = target.count * target.policy->period_ms;
    if (target.parts < cost) {
        state.denied++;
        put_denied(&target, cost);
        return FSM_OK;
    }
    bucket *taken_from = target.bucket;
    bool is_full = taken_from == NULL && state.table.count == BUCKETS_MAX;
    if (is_full && !has_idle_ahead(SWEPT_TO_MAKE_ROOM))
        return fsm_reject("too many keys are in use; see the query stats, and try the command sweep");
    if (taken_from == NULL && table_reserve(&state.table))
        taken_from = table_add(&state.table, target.policy->id, target.key);
    if (taken_from == NULL) return fsm_reject("there is no memory for another key");
    taken_from->parts = target.parts - cost;
    taken_from->at_ms = fsm_time_ms();
    state.allowed++;
    fsm_put("{\"allowed\":true");
    put_level(target.policy, taken_from->parts);
    /* The new bucket may be among those looked at: one more, or the idle one could be missed. */
    sweep(is_full ? SWEPT_TO_MAKE_ROOM + 1 : SWEPT_PER_COMMAND);
    FSM_CHECK(state.table.count <= BUCKETS_MAX);
    return FSM_OK;
}

static fsm_status give(fsm_slice rest) {
    target target;
    if (!parse_target(rest, true, &target)) return FSM_REJECTED;
    uint64_t given = target.count * target.policy->period_ms, capacity = policy_capacity(target.policy);
    uint64_t parts = given > capacity - target.parts ? capacity : target.parts + given;
    put_number("{\"given\":", target.count);
    put_level(target.policy, parts);
    if (target.bucket == NULL) return FSM_OK;
    target.bucket->parts = parts;
    target.bucket->at_ms = fsm_time_ms();
    if (parts == capacity) table_remove(&state.table, target.bucket);
    return FSM_OK;
}

static fsm_status reset(fsm_slice rest) {
    target target;
    if (!parse_target(rest, false, &target)) return FSM_REJECTED;
    fsm_put(target.bucket == NULL ? "{\"reset\":false}" : "{\"reset\":true}");
    if (target.bucket != NULL) table_remove(&state.table, target.bucket);
    return FSM_OK;
}

static fsm_status define(fsm_slice rest) {
    policy wanted = {0};
    fsm_slice name = fsm_word(&rest), tokens = fsm_word(&rest), period = fsm_word(&rest);
    if (!is_name(name)) return fsm_reject("a policy's name has 1 to 64 of A-Z a-z 0-9 . _ : / @ -");
    if (!fsm_parse_u64(tokens, TOKENS_MAX, &wanted.tokens) ||
        !fsm_parse_u64(period, PERIOD_MS_MAX, &wanted.period_ms) ||
        !fsm_parse_u64(rest, TOKENS_MAX, &wanted.burst) || !is_sound(&wanted))
        return fsm_reject("policy NAME TOKENS PERIOD_MS BURST: TOKENS and BURST are from 1 to 1000000000, "
                          "PERIOD_MS from 1 to 86400000");
    policy *found = policy_named(name);
    if (found == NULL && state.policies_count == POLICIES_MAX) return fsm_reject("there are 256 policies already");
    wanted.name_size = (uint32_t)name.size;
    memcpy(wanted.name, name.data, name.size);
    if (found == NULL) {
        uint32_t at = position_of(name);
        found = &state.policies[at];
        memmove(found + 1, found, (state.policies_count - at) * sizeof *found);
        state.policies_count++;
    } else if (found->tokens == wanted.tokens && found->period_ms == wanted.period_ms &&
               found->burst == wanted.burst) {
        put_policy(found); /* The same again: its buckets stay. */
        return FSM_OK;
    }
    wanted.id = ++state.definitions;
    *found = wanted;
    put_policy(found);
    return FSM_OK;
}

static fsm_status drop_policy(fsm_slice rest) {
    policy *found = policy_named(rest);
    if (found == NULL) return fsm_reject("there is no policy with this name");
    put_policy(found);
    uint32_t at = (uint32_t)(found - state.policies);
    state.policies_count--;
    memmove(found, found + 1, (state.policies_count - at) * sizeof *found);
    return FSM_OK;
}

static fsm_status apply(fsm_slice command) {
    fsm_slice rest = command, word = fsm_word(&rest);
    if (fsm_is(word, "take")) return take(rest);
    if (fsm_is(word, "give")) return give(rest);
    if (fsm_is(word, "reset")) return reset(rest);
    if (fsm_is(word, "policy")) return define(rest);
    if (fsm_is(word, "drop")) return drop_policy(rest);
    if (fsm_is(command, "sweep")) {
        put_number("{\"removed\":", sweep(SWEPT_AT_ONCE));
        put_number(",\"buckets\":", state.table.count);
        fsm_put("}");
        return FSM_OK;
    }
    return fsm_reject("a command is take, give, reset, policy, drop or sweep");
}

/* ---- Queries ---- */

static fsm_status peek(fsm_slice rest) {
    target target;
    if (!parse_target(rest, true, &target)) return FSM_REJECTED;
    uint64_t cost = target.count * target.policy->period_ms;
    if (target.parts < cost) {
        put_denied(&target, cost);
    } else {
        fsm_put("{\"allowed\":true");
        put_level(target.policy, target.parts);
    }
    return FSM_OK;
}

static fsm_status query(fsm_slice question) {
    fsm_slice rest = question, word = fsm_word(&rest);
    if (fsm_is(word, "peek")) return peek(rest);
    if (fsm_is(question, "policies")) {
        for (uint32_t i = 0; i < state.policies_count; i++) {
            fsm_put(i == 0 ? "[" : ",");
            put_policy(&state.policies[i]);
        }
        fsm_put(state.policies_count == 0 ? "[]" : "]");
        return FSM_OK;
    }
    if (fsm_is(question, "stats")) {
        put_number("{\"policies\":", state.policies_count);
        put_number(",\"buckets\":", state.table.count);
        put_number(",\"allowed\":", state.allowed);
        put_number(",\"denied\":", state.denied);
        fsm_put("}");
        return FSM_OK;
    }
    return fsm_reject("a query is peek, policies or stats");
}

/* ---- Snapshots: the format is in README.md ---- */

static void snapshot(void) {
    const table *table = &state.table;
    fsm_put("RLM1");
    fsm_put_u64(table->seed);
    fsm_put_u64(state.allowed);
    fsm_put_u64(state.denied);
    fsm_put_u64(state.definitions);
    fsm_put_u32(state.policies_count);
    for (uint32_t i = 0; i < state.policies_count; i++) {
        const policy *policy = &state.policies[i];
        fsm_put_sized(policy_name(policy));
        fsm_put_u64(policy->id);
        fsm_put_u64(policy->tokens);
        fsm_put_u64(policy->period_ms);
        fsm_put_u64(policy->burst);
    }
    fsm_put_u32(table->cursor);
    fsm_put_u32(table->count);
    for (uint32_t i = 0; i < table->count; i++) {
        const bucket *bucket = &table->buckets[i];
        fsm_slice key = {bucket->key, bucket->key_size};
        fsm_put_u64(bucket->policy_id);
        fsm_put_u64(bucket->parts);
        fsm_put_u64(bucket->at_ms);
        fsm_put_sized(key);
    }
}

static void restore_policy(fsm_reader *in) {
    policy policy = {0};
    policy.name_size = fsm_get_count(in, POLICY_NAME_MAX, 1);
    fsm_get_bytes(in, policy.name, policy.name_size);
    policy.id = fsm_get_u64(in);
    policy.tokens = fsm_get_u64(in);
    policy.period_ms = fsm_get_u64(in);
    policy.burst = fsm_get_u64(in);
    fsm_slice name = policy_name(&policy);
    if (!is_name(name) || !is_sound(&policy)) fsm_fail(in, "a policy is out of bounds");
    if (policy.id == 0 || policy.id > state.definitions) fsm_fail(in, "a policy's id is out of bounds");
    if (policy_with(policy.id) != NULL) fsm_fail(in, "two policies have one id");
    if (state.policies_count > 0 && fsm_compare(policy_name(&state.policies[state.policies_count - 1]), name) >= 0)
        fsm_fail(in, "policies are not in order");
    if (fsm_good(in)) state.policies[state.policies_count++] = policy;
}

static void restore_bucket(fsm_reader *in) {
    char bytes[KEY_MAX];
    uint64_t id = fsm_get_u64(in), parts = fsm_get_u64(in), at_ms = fsm_get_u64(in);
    fsm_slice key = {bytes, fsm_get_count(in, KEY_MAX, 1)};
    fsm_get_bytes(in, bytes, key.size);
    const policy *policy = policy_with(id);
    if (id == 0 || id > state.definitions) fsm_fail(in, "a bucket's policy was never defined");
    if (!is_key(key) || (policy != NULL && parts > policy_capacity(policy))) fsm_fail(in, "a bucket is out of bounds");
    if (!fsm_good(in)) return;
    if (table_find(&state.table, id, key) != NULL) {
        fsm_fail(in, "a bucket is there twice");
        return;
    }
    bucket *added = table_reserve(&state.table) ? table_add(&state.table, id, key) : NULL;
    if (added == NULL) {
        fsm_fail(in, "there is no memory for the buckets");
        return;
    }
    added->parts = parts;
    added->at_ms = at_ms;
}

static fsm_status restore(fsm_reader *in) {
    fsm_expect(in, "RLM1");
    state.table.seed = fsm_get_u64(in);
    state.allowed = fsm_get_u64(in);
    state.denied = fsm_get_u64(in);
    state.definitions = fsm_get_u64(in);
    uint32_t policies = fsm_get_count(in, POLICIES_MAX, 37);
    for (uint32_t i = 0; i < policies && fsm_good(in); i++) restore_policy(in);
    uint32_t cursor = fsm_get_u32(in);
    uint32_t buckets = fsm_get_count(in, BUCKETS_MAX, 29);
    for (uint32_t i = 0; i < buckets && fsm_good(in); i++) restore_bucket(in);
    if (cursor > buckets) fsm_fail(in, "the sweep is beyond the last bucket");
    state.table.cursor = cursor;
    return fsm_end(in);
}

static fsm_status init(void) {
    state.table.seed = fsm_random_u64();
    return FSM_OK;
}

static void drop(void) { table_drop(&state.table); }

FSM_MACHINE(FSM_STATE(state), .init = init, .apply = apply, .query = query, .snapshot = snapshot, .restore = restore,
            .drop = drop)
