/* All buckets: an array in the order that only commands decide, and a hash table of places in it. */
#ifndef TABLE_H
#define TABLE_H

#include "policy.h"

#ifndef BUCKETS_MAX /* A test makes it small. */
#define BUCKETS_MAX UINT32_C(500000)
#endif
#define KEY_MAX 128

typedef struct {
    uint64_t seed; /* Of the hash: clients cannot choose keys that fall into one place. */
    bucket *buckets;
    uint32_t count, room;
    uint32_t *places; /* 1 + place in `buckets`, or 0 for none; at least half of it is 0. */
    uint32_t places_size; /* 0 or a power of two. */
    uint32_t cursor;      /* Where the next sweep looks first: at most `count`. */
} table;

bucket *table_find(table *table, uint64_t policy_id, fsm_slice key);

/* Makes room for one more: false, and nothing changed, if there is no memory. */
bool table_reserve(table *table);

/* Adds a bucket that is not there yet, after `table_reserve`. NULL if there is no memory for the key. */
bucket *table_add(table *table, uint64_t policy_id, fsm_slice key);

/* The last bucket takes its place. */
void table_remove(table *table, bucket *bucket);

void table_drop(table *table);

#endif
