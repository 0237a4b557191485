#include "table.h"

static uint32_t hash_of(const table *table, uint64_t policy_id, fsm_slice key) {
    uint64_t hash = table->seed ^ (policy_id * UINT64_C(0x9e3779b97f4a7c15));
    for (size_t i = 0; i < key.size; i++) {
        hash = (hash ^ (unsigned char)key.data[i]) * UINT64_C(0x100000001b3);
        hash ^= hash >> 31;
    }
    hash *= UINT64_C(0xff51afd7ed558ccd);
    return (uint32_t)(hash >> 32);
}

static bool is_same(const bucket *bucket, uint32_t hash, uint64_t policy_id, fsm_slice key) {
    return bucket->hash == hash && bucket->policy_id == policy_id && bucket->key_size == key.size &&
           memcmp(bucket->key, key.data, key.size) == 0;
}

bucket *table_find(table *table, uint64_t policy_id, fsm_slice key) {
    if (table->places_size == 0) return NULL;
    uint32_t hash = hash_of(table, policy_id, key), mask = table->places_size - 1;
    for (uint32_t at = hash & mask; table->places[at] != 0; at = (at + 1) & mask) {
        bucket *found = &table->buckets[table->places[at] - 1];
        if (is_same(found, hash, policy_id, key)) return found;
    }
    return NULL;
}

static void put_place(table *table, uint32_t number) {
    uint32_t mask = table->places_size - 1, at = table->buckets[number].hash & mask;
    while (table->places[at] != 0) at = (at + 1) & mask;
    table->places[at] = number + 1;
}

static uint32_t place_of(const table *table, uint32_t number) {
    uint32_t mask = table->places_size - 1, at = table->buckets[number].hash & mask;
    while (table->places[at] != number + 1) {
        FSM_CHECK(table->places[at] != 0);
        at = (at + 1) & mask;
    }
    return at;
}

bool table_reserve(table *table) {
    if (table->count == table->room) {
        uint32_t room = table->room == 0 ? 64 : 2 * table->room;
        bucket *buckets = fsm_realloc(table->buckets, room * sizeof *buckets);
        if (buckets == NULL) return false;
        table->buckets = buckets;
        table->room = room;
    }
    if (2 * (table->count + 1) > table->places_size) {
        uint32_t size = table->places_size == 0 ? 256 : 2 * table->places_size;
        uint32_t *places = fsm_alloc(size * sizeof *places);
        if (places == NULL) return false;
        memset(places, 0, size * sizeof *places);
        fsm_free(table->places);
        table->places = places;
        table->places_size = size;
        for (uint32_t number = 0; number < table->count; number++) put_place(table, number);
    }
    return true;
}

bucket *table_add(table *table, uint64_t policy_id, fsm_slice key) {
    FSM_CHECK(table->count < table->room);
    char *copy = fsm_alloc(key.size);
    if (copy == NULL) return NULL;
    memcpy(copy, key.data, key.size);
    bucket *added = &table->buckets[table->count];
    memset(added, 0, sizeof *added);
    added->policy_id = policy_id;
    added->hash = hash_of(table, policy_id, key);
    added->key_size = (uint32_t)key.size;
    added->key = copy;
    put_place(table, table->count);
    table->count++;
    return added;
}

void table_remove(table *table, bucket *bucket) {
    uint32_t number = (uint32_t)(bucket - table->buckets), last = table->count - 1;
    uint32_t mask = table->places_size - 1, hole = place_of(table, number);
    /* What follows the hole moves up, unless it would come before where its search begins. */
    for (uint32_t at = (hole + 1) & mask; table->places[at] != 0; at = (at + 1) & mask) {
        uint32_t wanted = table->buckets[table->places[at] - 1].hash & mask;
        if (((at - wanted) & mask) >= ((at - hole) & mask)) {
            table->places[hole] = table->places[at];
            hole = at;
        }
    }
    table->places[hole] = 0;
    fsm_free(bucket->key);
    if (number != last) {
        table->places[place_of(table, last)] = number + 1;
        *bucket = table->buckets[last];
    }
    table->count = last;
    if (table->cursor > last) table->cursor = last;
}

void table_drop(table *table) {
    for (uint32_t number = 0; number < table->count; number++) fsm_free(table->buckets[number].key);
    fsm_free(table->buckets);
    fsm_free(table->places);
}
