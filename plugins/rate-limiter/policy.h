/* What a policy allows, in whole numbers.
 *
 * A policy gives `tokens` every `period_ms` and lets up to `burst` of them pile up. A level is kept in parts of a token,
 * `period_ms` of which are one: each millisecond adds exactly `tokens` parts, so nothing is rounded and nothing drifts.
 */
#ifndef POLICY_H
#define POLICY_H

#include "../../guest-sdk/c/raft_fsm.h"

#define POLICY_NAME_MAX 64
#define TOKENS_MAX UINT64_C(1000000000)
#define PERIOD_MS_MAX UINT64_C(86400000)

typedef struct {
    uint64_t id; /* Which definition it is, counted from 1. Tells its buckets from those of earlier policies. */
    uint64_t tokens, period_ms, burst;
    uint32_t name_size;
    char name[POLICY_NAME_MAX];
} policy;

/* A key's level at the time it was last set. A key without a bucket is full. */
typedef struct {
    uint64_t policy_id;
    uint64_t parts;
    uint64_t at_ms;
    uint32_t hash;
    uint32_t key_size;
    char *key;
} bucket;

static inline fsm_slice policy_name(const policy *policy) {
    fsm_slice name = {policy->name, policy->name_size};
    return name;
}

/* At most 8.64e16. */
static inline uint64_t policy_capacity(const policy *policy) { return policy->burst * policy->period_ms; }

/* How long until `parts` more are there. */
static inline uint64_t policy_wait_ms(const policy *policy, uint64_t parts) {
    return parts / policy->tokens + (parts % policy->tokens != 0);
}

static inline uint64_t policy_parts_at(const policy *policy, const bucket *bucket, uint64_t now_ms) {
    uint64_t capacity = policy_capacity(policy);
    uint64_t elapsed_ms = now_ms > bucket->at_ms ? now_ms - bucket->at_ms : 0;
    if (elapsed_ms >= policy_wait_ms(policy, capacity - bucket->parts)) return capacity;
    return bucket->parts + elapsed_ms * policy->tokens;
}

#endif
