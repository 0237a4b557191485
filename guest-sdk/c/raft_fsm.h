/* raft_fsm.h: state machines for raft-host in C. This file is the whole SDK, and this comment its manual.
 *
 * A machine is a handful of functions and one variable that holds the state:
 *
 *     #define RAFT_FSM_IMPLEMENTATION            in exactly one file of the module
 *     #include "raft_fsm.h"
 *
 *     static struct { uint64_t sum; } state;
 *
 *     static fsm_status apply(fsm_slice command) {
 *         uint64_t number;
 *         if (!fsm_parse_u64(command, 1000, &number)) return fsm_reject("not a number up to 1000");
 *         state.sum += number;                   rejected means unchanged: check first, change after
 *         fsm_put_decimal(state.sum);            the answer
 *         return FSM_OK;
 *     }
 *     static fsm_status query(fsm_slice question) { ... }
 *     static void snapshot(void) { fsm_put("ADD1"); fsm_put_u64(state.sum); }
 *     static fsm_status restore(fsm_reader *in) {
 *         fsm_expect(in, "ADD1");
 *         state.sum = fsm_get_u64(in);
 *         return fsm_end(in);
 *     }
 *     FSM_MACHINE(FSM_STATE(state), .apply = apply, .query = query, .snapshot = snapshot, .restore = restore)
 *
 * Build it for wasm32 with no library at all:
 *
 *     clang --target=wasm32-unknown-unknown -O2 -ffreestanding -nostdlib -mbulk-memory \
 *         -Wl,--no-entry -Wl,--stack-first -Wl,-z,stack-size=262144 -Wl,--strip-all -o adder.wasm adder.c
 *
 * or with wasi-libc: `--target=wasm32-wasi -mexec-model=reactor`; keep `--stack-first`, with which a stack that is too
 * deep traps rather than overwriting the state. `cc adder.c test.c` builds it for tests (see "Tests" below).
 *
 * Calls. Each call of the host is one call of one function; they never overlap. `apply` changes the state; it and `query`
 * return FSM_OK, and what was put is the answer, or FSM_REJECTED, and what was put is the reason. `restore` begins with the
 * state as the program has it at its start. `.init`, if given, runs once in the life of a cluster. A machine without
 * `.query` rejects queries. Whatever must survive the call lies in the state or in memory that it points to.
 *
 * Classes. A cluster may let somebody give some commands only. With `#define RAFT_FSM_CLASSES` before every include of this
 * header a machine also has `.classify`: it names the class of a command, or returns NULL for one that has none, which only
 * those may give who may give all. A name has 1 to 64 letters, digits and any of `.`, `_`, `-`. What it changes is undone.
 *
 * Rules. With `#define RAFT_FSM_RULES` likewise a machine also has `.check`: it walks the state, and returns FSM_OK, or
 * FSM_REJECTED and what was put: which rule of its own the state breaks. The host asks when an upgrade is tried.
 *
 * Versions. With `#define RAFT_FSM_VERSIONS` likewise a machine also has `.state_version`, the name of what its `snapshot`
 * writes, such as "kv/2" (1 to 64 letters, digits and any of `.`, `_`, `-`, `/`), and `.restores`, which says whether `restore`
 * takes a format, FSM_OK or FSM_REJECTED; NULL: the own one only. So it is never given the state of a stranger.
 *
 * Adopting. With `#define RAFT_FSM_ADOPT` likewise a machine also has `.adopt`. It begins like `restore`, but builds the state
 * from the exact memory of another module, whose own `snapshot` can never succeed: `old->module` is that module's SHA-256, so
 * refuse all but those whose layout you know. `fsm_old_...` read its memory and globals. As with a reader, after the first
 * error they give zeros, and `fsm_old_end` rejects with it.
 *
 * Output. `fsm_put...` appends to the answer, the reason or the snapshot, through a buffer of 4 KiB; nothing needs to be
 * held in memory as a whole. `fsm_reject` throws away an answer that was begun, if it is still in the buffer.
 *
 * Restoring. `fsm_get...` read from the snapshot, little-endian, through 4 KiB too. After the first error (too short, wrong
 * magic, a count that is too large, `fsm_fail`) they give zeros, so a loop over a count ends by itself, and only `fsm_end`
 * has to be asked: it rejects with the first error, or with "bytes follow the snapshot". Read lengths with `fsm_get_count`,
 * which never lets through more than can be there.
 *
 * Breaking. `fsm_panic` writes its message to the log of the node and traps; the host undoes the whole call. FSM_CHECK(x)
 * panics if x does not hold. Both are for mistakes of the program, not of the client: a rejection is much faster.
 *
 * Memory. Without a libc, `fsm_alloc` is a small allocator: a size is rounded up by at most a quarter, freed blocks are used
 * again for the same rounded size and are neither split nor joined, so allocate from few sizes or keep arrays that double.
 * With a libc it is malloc. It answers NULL if the cluster's memory limit (1 GiB at first) is reached: reject then, before
 * anything is changed. Without a libc this header also has memcpy, memmove, memset, memcmp and strlen.
 *
 * Determinism. A machine sees the command, its actor, the index, the time and the random bytes of this header, and nothing else, so it
 * cannot help being deterministic. Snapshots must depend on the contents alone: never write addresses or structs whole.
 */
#ifndef RAFT_FSM_H
#define RAFT_FSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(__wasm__)
#define RAFT_FSM_NATIVE 1 /* For tests: a host in this header instead of raft-host. */
#elif !defined(__wasi__)
#define RAFT_FSM_FREESTANDING 1
#endif

#if defined(RAFT_FSM_FREESTANDING)
#ifdef __cplusplus
extern "C" {
#endif
void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *left, const void *right, size_t size);
size_t strlen(const char *text);
#ifdef __cplusplus
}
#endif
#else
#include <stdlib.h>
#include <string.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- What a machine is ---- */

typedef enum { FSM_OK = 0, FSM_REJECTED = 1 } fsm_status;

/* Bytes that belong to somebody else; not terminated by a zero. Those of a call are gone when it is over. */
typedef struct {
    const char *data;
    size_t size;
} fsm_slice;

typedef struct {
    uint32_t left;       /* Bytes that were not read yet, those in the buffer included. */
    uint32_t at, filled; /* at <= filled <= sizeof buffer */
    const char *problem; /* The first error; NULL while all is well. */
    unsigned char buffer[4096];
} fsm_reader;

/* The instance that `adopt` takes over. */
typedef struct {
    unsigned char module[32]; /* SHA-256 of its module. */
    uint64_t size;            /* Of its memory, in bytes. */
    const char *problem;      /* The first error; NULL while all is well. */
} fsm_old;

typedef struct {
    void *state; /* The variable with the state: FSM_STATE fills in both. For tests only. */
    size_t state_size;
    fsm_status (*init)(void);
    fsm_status (*apply)(fsm_slice command);
    fsm_status (*query)(fsm_slice question);
    void (*snapshot)(void);
    fsm_status (*restore)(fsm_reader *in);
    void (*drop)(void); /* Frees what the state points to. For tests only; may be missing. */
#if defined(RAFT_FSM_CLASSES)
    const char *(*classify)(fsm_slice command); /* A text that stays, or NULL. */
#endif
#if defined(RAFT_FSM_RULES)
    fsm_status (*check)(void);
#endif
#if defined(RAFT_FSM_VERSIONS)
    const char *state_version;
    fsm_status (*restores)(fsm_slice version); /* May be missing. */
#endif
#if defined(RAFT_FSM_ADOPT)
    fsm_status (*adopt)(fsm_old *old);
#endif
} fsm_machine;

extern const fsm_machine fsm_this_machine;

#define FSM_MACHINE(...) const fsm_machine fsm_this_machine = {__VA_ARGS__};
#define FSM_STATE(variable) .state = &(variable), .state_size = sizeof(variable)

/* ---- Where a call stands ---- */

uint64_t fsm_index(void);                   /* Of the entry; in queries and snapshots, of the last one applied. */
uint32_t fsm_ordinal(void);                 /* Which of its entry's commands, from 0 on: an entry may hold several. */
uint64_t fsm_time_ms(void);                 /* The log's clock since the Unix epoch. It never goes back. */
fsm_slice fsm_actor(void);                  /* Who gave the command; empty if nobody is known, and in other calls. */
void fsm_random(void *to, size_t size);     /* The same bytes on every replica. Not for secrets. */
uint64_t fsm_random_u64(void);

/* ---- Answers, reasons, snapshots ---- */

void fsm_put(const char *text);
void fsm_put_slice(fsm_slice bytes);
void fsm_put_bytes(const void *bytes, size_t size);
void fsm_put_decimal(uint64_t number);
void fsm_put_signed(int64_t number);
void fsm_put_hex(const void *bytes, size_t size); /* Lower case. */
void fsm_put_u8(uint8_t number);
void fsm_put_u32(uint32_t number); /* Little-endian, as all numbers in snapshots. */
void fsm_put_u64(uint64_t number);
void fsm_put_i64(int64_t number);
void fsm_put_sized(fsm_slice bytes); /* The size as a u32, and the bytes. */

/* Begins a reason; more may be put after it. Always FSM_REJECTED, so: return fsm_reject("too small"); */
fsm_status fsm_reject(const char *reason);

/* ---- Reading a snapshot ---- */

uint8_t fsm_get_u8(fsm_reader *in);
uint32_t fsm_get_u32(fsm_reader *in);
uint64_t fsm_get_u64(fsm_reader *in);
int64_t fsm_get_i64(fsm_reader *in);
void fsm_get_bytes(fsm_reader *in, void *to, size_t size); /* Zeros after an error. */
void fsm_expect(fsm_reader *in, const char *magic);

/* A u32 that counts things of at least `each` bytes: 0 and an error if it is above `most` or more than can follow. */
uint32_t fsm_get_count(fsm_reader *in, uint32_t most, uint32_t each);

void fsm_fail(fsm_reader *in, const char *problem); /* Keeps the first. */
bool fsm_good(const fsm_reader *in);
fsm_status fsm_end(fsm_reader *in);

/* ---- Reading the memory of an old instance: for `adopt` ---- */

#if defined(RAFT_FSM_ADOPT)
typedef enum { FSM_NO_GLOBAL = -1, FSM_I32 = 0, FSM_I64 = 1, FSM_F32 = 2, FSM_F64 = 3, FSM_V128 = 4 } fsm_type;

void fsm_old_bytes(fsm_old *old, uint64_t at, void *to, size_t size);
uint8_t fsm_old_u8(fsm_old *old, uint64_t at);
uint32_t fsm_old_u32(fsm_old *old, uint64_t at); /* A pointer or a size, say. */
uint64_t fsm_old_u64(fsm_old *old, uint64_t at);
bool fsm_old_has(fsm_old *old, uint64_t at, uint64_t size); /* Ask before memory is allocated for it. False is an error. */

/* The number-th mutable global, from 0 on: its type, and its bits, little-endian, zeros behind a short one. */
fsm_type fsm_old_global(fsm_old *old, uint32_t number, unsigned char bits[16]);

void fsm_old_fail(fsm_old *old, const char *problem); /* Keeps the first. */
fsm_status fsm_old_end(fsm_old *old);
#endif

/* ---- Events, log, breaking ---- */

typedef enum { FSM_ERROR = 1, FSM_WARN = 2, FSM_INFO = 3, FSM_DEBUG = 4 } fsm_level;

void fsm_emit(fsm_slice topic, fsm_slice payload); /* Counts if the command is accepted. */
void fsm_log(fsm_level level, const char *text);
void fsm_log_slice(fsm_level level, fsm_slice text);

#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void fsm_panic(const char *message);

#define FSM_CHECK(condition) ((condition) ? (void)0 : fsm_panic("does not hold: " #condition))

/* ---- Text ---- */

fsm_slice fsm_text(const char *text);
bool fsm_is(fsm_slice slice, const char *text);
int fsm_compare(fsm_slice left, fsm_slice right); /* By bytes, the shorter first: below, at or above 0. */

/* Takes the bytes up to the first space, and that space, off `rest`. */
fsm_slice fsm_word(fsm_slice *rest);

/* A decimal number without a sign, of 1 to 20 digits and at most `most`. */
bool fsm_parse_u64(fsm_slice text, uint64_t most, uint64_t *number);

/* ---- Memory: NULL if there is none ---- */

void *fsm_alloc(size_t size); /* Aligned to 16 bytes, not cleared. */
void *fsm_realloc(void *block, size_t size);
void fsm_free(void *block);

/* ---- Tests: only where the target is not wasm ----
 *
 * A test is a program of its own: it includes this header and is linked with the machine by the host's compiler.
 *
 *     int main(void) {
 *         fsm_test_begin();
 *         fsm_expect_apply("5", "5");
 *         fsm_expect_rejected("five", "not a number up to 1000");
 *         fsm_test_renew();
 *         fsm_expect_query("", "5");
 *         return fsm_test_end();
 *     }
 *
 * The runner keeps the promises in view: it ends the program if a rejected command or a query changes what `snapshot`
 * writes. Panics are caught and undone; other crashes are crashes, and sanitizers work.
 */
#if defined(RAFT_FSM_NATIVE)

typedef enum { FSM_TEST_OK = 0, FSM_TEST_REJECTED = 1, FSM_TEST_TRAPPED = 2 } fsm_test_kind;

typedef struct {
    fsm_test_kind kind;
    fsm_slice output; /* The answer or the reason; a zero follows it. Good until the next call. */
} fsm_outcome;

extern bool fsm_test_promises; /* Whether promises are checked; true at first. They cost two snapshots a call. */

void fsm_test_begin(void); /* A new cluster: the first state, index 1, `init`. */
int fsm_test_end(void);    /* Frees the state; the result of main. */
void fsm_test_advance(uint64_t ms);
void fsm_test_actor(const char *name); /* Who gives the commands from now on; "" for nobody, as at first. */

fsm_outcome fsm_test_apply(fsm_slice command);
fsm_outcome fsm_test_query(fsm_slice question);
#if defined(RAFT_FSM_CLASSES)
fsm_outcome fsm_test_classify(fsm_slice command); /* As if it came next; the output is the name. */
#endif
#if defined(RAFT_FSM_RULES)
fsm_outcome fsm_test_check(void);
#endif
#if defined(RAFT_FSM_VERSIONS)
fsm_outcome fsm_test_state_version(void);
fsm_outcome fsm_test_restores(fsm_slice version);
#endif
#if defined(RAFT_FSM_ADOPT)
/* Takes over this module's memory and globals (a type and 16 bytes each). Rejected: the old state stays. */
typedef struct {
    fsm_type type;
    unsigned char bits[16];
} fsm_test_global;
fsm_outcome fsm_test_adopt(const unsigned char module[32], fsm_slice memory, const fsm_test_global *globals, uint32_t count);
#endif
fsm_slice fsm_test_snapshot(void);                /* Good until the next snapshot. */
fsm_outcome fsm_test_restore(fsm_slice snapshot); /* Rejected: the old state stays. */
void fsm_test_renew(void);                        /* An upgrade: snapshot, restore, and the same snapshot again. */

const char *fsm_test_events(void); /* Of the last call, a line each: TOPIC PAYLOAD */
const char *fsm_test_logs(void);   /* Of the last call, a line each: LEVEL TEXT */

void fsm_test_expect(const char *file, int line, fsm_outcome outcome, fsm_test_kind kind, const char *output);
void fsm_test_same(const char *file, int line, const char *found, const char *expected);

#define fsm_expect_apply(command, answer) \
    fsm_test_expect(__FILE__, __LINE__, fsm_test_apply(fsm_text(command)), FSM_TEST_OK, answer)
#define fsm_expect_query(question, answer) \
    fsm_test_expect(__FILE__, __LINE__, fsm_test_query(fsm_text(question)), FSM_TEST_OK, answer)
#define fsm_expect_rejected(command, reason) \
    fsm_test_expect(__FILE__, __LINE__, fsm_test_apply(fsm_text(command)), FSM_TEST_REJECTED, reason)
#define fsm_expect_query_rejected(question, reason) \
    fsm_test_expect(__FILE__, __LINE__, fsm_test_query(fsm_text(question)), FSM_TEST_REJECTED, reason)
#define fsm_expect_class(command, name) \
    fsm_test_expect(__FILE__, __LINE__, fsm_test_classify(fsm_text(command)), FSM_TEST_OK, name)
#define fsm_expect_check(reason) \
    fsm_test_expect(__FILE__, __LINE__, fsm_test_check(), *(reason) ? FSM_TEST_REJECTED : FSM_TEST_OK, reason)
#define fsm_expect_text(found, expected) fsm_test_same(__FILE__, __LINE__, found, expected)

#endif

#ifdef __cplusplus
}
#endif
#endif /* RAFT_FSM_H */

/* ================================================================================================================= */

#if defined(RAFT_FSM_IMPLEMENTATION) && !defined(RAFT_FSM_IMPLEMENTED)
#define RAFT_FSM_IMPLEMENTED

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The host ---- */

#if defined(RAFT_FSM_NATIVE)
#define FSM_IMPORT(name) static
#define FSM_EXPORT(name) static
#else
#define FSM_IMPORT(name) __attribute__((import_module("raft_fsm_v1"), import_name(#name)))
#define FSM_EXPORT(name) __attribute__((export_name(#name), used))
#endif

FSM_IMPORT(read) uint32_t fsm_host_read(void *to, uint32_t size);
FSM_IMPORT(write) void fsm_host_write(const void *from, uint32_t size);
FSM_IMPORT(index) uint64_t fsm_host_index(void);
FSM_IMPORT(ordinal) uint32_t fsm_host_ordinal(void);
FSM_IMPORT(time_ms) uint64_t fsm_host_time_ms(void);
FSM_IMPORT(actor) uint32_t fsm_host_actor(void *to, uint32_t size);
FSM_IMPORT(random) void fsm_host_random(void *to, uint32_t size);
FSM_IMPORT(emit) void fsm_host_emit(const void *topic, uint32_t topic_size, const void *from, uint32_t size);
FSM_IMPORT(log) void fsm_host_log(uint32_t level, const void *from, uint32_t size);
static void fsm_host_trap(void);
#if defined(RAFT_FSM_ADOPT)
FSM_IMPORT(old_memory_size) uint64_t fsm_host_old_memory_size(void);
FSM_IMPORT(old_memory) void fsm_host_old_memory(uint64_t at, void *to, uint32_t size);
FSM_IMPORT(old_global) int32_t fsm_host_old_global(uint32_t number, void *to);
#endif

uint64_t fsm_index(void) { return fsm_host_index(); }

uint32_t fsm_ordinal(void) { return fsm_host_ordinal(); }

uint64_t fsm_time_ms(void) { return fsm_host_time_ms(); }

fsm_slice fsm_actor(void) {
    static char name[64]; /* None is longer. */
    uint32_t size = fsm_host_actor(name, (uint32_t)sizeof name);
    fsm_slice slice = {name, size < sizeof name ? size : sizeof name};
    return slice;
}

void fsm_random(void *to, size_t size) { fsm_host_random(to, (uint32_t)size); }

uint64_t fsm_random_u64(void) {
    uint64_t number = 0;
    fsm_host_random(&number, (uint32_t)sizeof number);
    return number;
}

void fsm_emit(fsm_slice topic, fsm_slice payload) {
    fsm_host_emit(topic.data, (uint32_t)topic.size, payload.data, (uint32_t)payload.size);
}

void fsm_log_slice(fsm_level level, fsm_slice text) { fsm_host_log((uint32_t)level, text.data, (uint32_t)text.size); }

void fsm_log(fsm_level level, const char *text) { fsm_log_slice(level, fsm_text(text)); }

void fsm_panic(const char *message) {
    fsm_log(FSM_ERROR, message);
    fsm_host_trap();
#if defined(__GNUC__)
    __builtin_unreachable();
#endif
}

/* ---- Output ---- */

static unsigned char fsm_out[4096];
static size_t fsm_out_used; /* Always <= sizeof fsm_out; 0 between calls. */

static void fsm_flush(void) {
    if (fsm_out_used > 0) fsm_host_write(fsm_out, (uint32_t)fsm_out_used);
    fsm_out_used = 0;
}

void fsm_put_bytes(const void *bytes, size_t size) {
    if (size > sizeof fsm_out - fsm_out_used) fsm_flush();
    if (size > sizeof fsm_out) {
        fsm_host_write(bytes, (uint32_t)size);
    } else if (size > 0) {
        memcpy(fsm_out + fsm_out_used, bytes, size);
        fsm_out_used += size;
    }
}

void fsm_put(const char *text) { fsm_put_bytes(text, strlen(text)); }

void fsm_put_slice(fsm_slice bytes) { fsm_put_bytes(bytes.data, bytes.size); }

void fsm_put_decimal(uint64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    fsm_put_bytes(digits + at, sizeof digits - at);
}

void fsm_put_signed(int64_t number) {
    if (number < 0) fsm_put("-");
    fsm_put_decimal(number < 0 ? UINT64_C(0) - (uint64_t)number : (uint64_t)number);
}

void fsm_put_hex(const void *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned byte = ((const unsigned char *)bytes)[i];
        char digits[2] = {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
        fsm_put_bytes(digits, 2);
    }
}

static void fsm_put_little_endian(uint64_t number, size_t size) {
    unsigned char bytes[8];
    for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)(number >> (8 * i));
    fsm_put_bytes(bytes, size);
}

void fsm_put_u8(uint8_t number) { fsm_put_little_endian(number, 1); }

void fsm_put_u32(uint32_t number) { fsm_put_little_endian(number, 4); }

void fsm_put_u64(uint64_t number) { fsm_put_little_endian(number, 8); }

void fsm_put_i64(int64_t number) { fsm_put_little_endian((uint64_t)number, 8); }

void fsm_put_sized(fsm_slice bytes) {
    fsm_put_u32((uint32_t)bytes.size);
    fsm_put_slice(bytes);
}

fsm_status fsm_reject(const char *reason) {
    fsm_out_used = 0;
    fsm_put(reason);
    return FSM_REJECTED;
}

/* ---- Input ---- */

void fsm_fail(fsm_reader *in, const char *problem) {
    if (in->problem == NULL) in->problem = problem;
}

bool fsm_good(const fsm_reader *in) { return in->problem == NULL; }

void fsm_get_bytes(fsm_reader *in, void *to, size_t size) {
    unsigned char *out = (unsigned char *)to;
    if (size > in->left) fsm_fail(in, "the snapshot is too short");
    if (in->problem != NULL) {
        if (size > 0) memset(out, 0, size);
        return;
    }
    in->left -= (uint32_t)size;
    while (size > 0) {
        if (in->at == in->filled) {
            in->at = 0;
            in->filled = fsm_host_read(in->buffer, (uint32_t)sizeof in->buffer);
            FSM_CHECK(in->filled > 0); /* The host gives as many bytes as it said. */
        }
        size_t some = in->filled - in->at;
        if (some > size) some = size;
        memcpy(out, in->buffer + in->at, some);
        in->at += (uint32_t)some;
        out += some;
        size -= some;
    }
}

static uint64_t fsm_get_little_endian(fsm_reader *in, size_t size) {
    unsigned char bytes[8];
    uint64_t number = 0;
    fsm_get_bytes(in, bytes, size);
    for (size_t i = 0; i < size; i++) number |= (uint64_t)bytes[i] << (8 * i);
    return number;
}

uint8_t fsm_get_u8(fsm_reader *in) { return (uint8_t)fsm_get_little_endian(in, 1); }

uint32_t fsm_get_u32(fsm_reader *in) { return (uint32_t)fsm_get_little_endian(in, 4); }

uint64_t fsm_get_u64(fsm_reader *in) { return fsm_get_little_endian(in, 8); }

int64_t fsm_get_i64(fsm_reader *in) { return (int64_t)fsm_get_little_endian(in, 8); }

uint32_t fsm_get_count(fsm_reader *in, uint32_t most, uint32_t each) {
    uint32_t count = fsm_get_u32(in);
    if (count > most) fsm_fail(in, "a count in the snapshot is too large");
    if (each > 0 && count > in->left / each) fsm_fail(in, "the snapshot is too short");
    return fsm_good(in) ? count : 0;
}

void fsm_expect(fsm_reader *in, const char *magic) {
    for (; *magic != 0; magic++)
        if (fsm_get_u8(in) != (unsigned char)*magic) fsm_fail(in, "not a snapshot that this machine can read");
}

fsm_status fsm_end(fsm_reader *in) {
    if (in->left > 0) fsm_fail(in, "bytes follow the snapshot");
    return fsm_good(in) ? FSM_OK : fsm_reject(in->problem);
}

/* ---- Text ---- */

fsm_slice fsm_text(const char *text) {
    fsm_slice slice = {text, strlen(text)};
    return slice;
}

int fsm_compare(fsm_slice left, fsm_slice right) {
    size_t shorter = left.size < right.size ? left.size : right.size;
    int order = shorter > 0 ? memcmp(left.data, right.data, shorter) : 0;
    return order != 0 ? order : (left.size > right.size) - (left.size < right.size);
}

bool fsm_is(fsm_slice slice, const char *text) { return fsm_compare(slice, fsm_text(text)) == 0; }

fsm_slice fsm_word(fsm_slice *rest) {
    fsm_slice word = {rest->data, 0};
    while (word.size < rest->size && rest->data[word.size] != ' ') word.size++;
    size_t taken = word.size + (word.size < rest->size ? 1 : 0);
    if (taken > 0) rest->data += taken;
    rest->size -= taken;
    return word;
}

bool fsm_parse_u64(fsm_slice text, uint64_t most, uint64_t *number) {
    uint64_t value = 0;
    if (text.size == 0 || text.size > 20) return false;
    for (size_t i = 0; i < text.size; i++) {
        unsigned digit = (unsigned)(unsigned char)text.data[i] - '0';
        if (digit > 9 || value > UINT64_MAX / 10 || (value == UINT64_MAX / 10 && digit > UINT64_MAX % 10)) return false;
        value = value * 10 + digit;
    }
    if (value > most) return false;
    *number = value;
    return true;
}

/* ---- Calls ---- */

static int32_t fsm_finish(fsm_status status) {
    fsm_flush();
    return (int32_t)status;
}

static int32_t fsm_with_input(fsm_status (*call)(fsm_slice), uint32_t size) {
    static char small[1024];
    char *input = size <= sizeof small ? small : (char *)fsm_alloc(size);
    if (input == NULL) return fsm_finish(fsm_reject("there is no memory for so long an input"));
    fsm_slice slice = {input, fsm_host_read(input, size)};
    int32_t status = fsm_finish(call(slice));
    if (input != small) fsm_free(input);
    return status;
}

FSM_EXPORT(raft_fsm_abi_v1) void fsm_export_marker(void) {}

FSM_EXPORT(init) int32_t fsm_export_init(void) {
    return fsm_finish(fsm_this_machine.init != NULL ? fsm_this_machine.init() : FSM_OK);
}

FSM_EXPORT(apply) int32_t fsm_export_apply(uint32_t size) { return fsm_with_input(fsm_this_machine.apply, size); }

FSM_EXPORT(query) int32_t fsm_export_query(uint32_t size) {
    if (fsm_this_machine.query == NULL) return fsm_finish(fsm_reject("this machine answers no queries"));
    return fsm_with_input(fsm_this_machine.query, size);
}

#if defined(RAFT_FSM_CLASSES)
static fsm_status fsm_put_class(fsm_slice command) {
    const char *name = fsm_this_machine.classify != NULL ? fsm_this_machine.classify(command) : NULL;
    if (name != NULL) fsm_put(name);
    return FSM_OK;
}

FSM_EXPORT(classify) int32_t fsm_export_classify(uint32_t size) { return fsm_with_input(fsm_put_class, size); }
#endif

#if defined(RAFT_FSM_RULES)
FSM_EXPORT(check) int32_t fsm_export_check(void) {
    return fsm_finish(fsm_this_machine.check != NULL ? fsm_this_machine.check() : FSM_OK);
}
#endif

#if defined(RAFT_FSM_VERSIONS)
FSM_EXPORT(state_version) int32_t fsm_export_state_version(void) {
    if (fsm_this_machine.state_version != NULL) fsm_put(fsm_this_machine.state_version);
    return fsm_finish(FSM_OK);
}

static fsm_status fsm_restores(fsm_slice version) {
    const char *own = fsm_this_machine.state_version;
    if (fsm_this_machine.restores != NULL) return fsm_this_machine.restores(version);
    if (own == NULL || fsm_is(version, own)) return FSM_OK;
    fsm_reject("it restores ");
    fsm_put(own);
    fsm_put(" only, and not ");
    fsm_put_slice(version);
    return FSM_REJECTED;
}

FSM_EXPORT(restores) int32_t fsm_export_restores(uint32_t size) { return fsm_with_input(fsm_restores, size); }
#endif

#if defined(RAFT_FSM_ADOPT)
bool fsm_old_has(fsm_old *old, uint64_t at, uint64_t size) {
    if (at > old->size || size > old->size - at) fsm_old_fail(old, "the old memory ends too early");
    return old->problem == NULL;
}

void fsm_old_bytes(fsm_old *old, uint64_t at, void *to, size_t size) {
    if (size == 0) return;
    if (fsm_old_has(old, at, size))
        fsm_host_old_memory(at, to, (uint32_t)size);
    else
        memset(to, 0, size);
}

static uint64_t fsm_old_little_endian(fsm_old *old, uint64_t at, size_t size) {
    unsigned char bytes[8];
    uint64_t number = 0;
    fsm_old_bytes(old, at, bytes, size);
    for (size_t i = size; i > 0; i--) number = number << 8 | bytes[i - 1];
    return number;
}

uint8_t fsm_old_u8(fsm_old *old, uint64_t at) { return (uint8_t)fsm_old_little_endian(old, at, 1); }

uint32_t fsm_old_u32(fsm_old *old, uint64_t at) { return (uint32_t)fsm_old_little_endian(old, at, 4); }

uint64_t fsm_old_u64(fsm_old *old, uint64_t at) { return fsm_old_little_endian(old, at, 8); }

fsm_type fsm_old_global(fsm_old *old, uint32_t number, unsigned char bits[16]) {
    (void)old;
    memset(bits, 0, 16);
    return (fsm_type)fsm_host_old_global(number, bits);
}

void fsm_old_fail(fsm_old *old, const char *problem) {
    if (old->problem == NULL) old->problem = problem;
}

fsm_status fsm_old_end(fsm_old *old) { return old->problem != NULL ? fsm_reject(old->problem) : FSM_OK; }

FSM_EXPORT(adopt) int32_t fsm_export_adopt(uint32_t size) {
    fsm_old old = {{0}, fsm_host_old_memory_size(), NULL};
    FSM_CHECK(size == sizeof old.module && fsm_host_read(old.module, size) == size);
    return fsm_finish(fsm_this_machine.adopt(&old));
}
#endif

FSM_EXPORT(snapshot) int32_t fsm_export_snapshot(void) {
    fsm_this_machine.snapshot();
    return fsm_finish(FSM_OK);
}

FSM_EXPORT(restore) int32_t fsm_export_restore(uint32_t size) {
    static fsm_reader in;
    in.left = size;
    in.at = in.filled = 0;
    in.problem = NULL;
    return fsm_finish(fsm_this_machine.restore(&in));
}

/* ---- wasm: trapping, memory, and what compilers call without being asked ---- */

#if !defined(RAFT_FSM_NATIVE)
static void fsm_host_trap(void) { __builtin_trap(); }
#endif

#if defined(RAFT_FSM_FREESTANDING)

#if defined(__wasm_bulk_memory__)
/* These built-ins are single instructions. */
void *memcpy(void *to, const void *from, size_t size) { return __builtin_memcpy(to, from, size); }
void *memmove(void *to, const void *from, size_t size) { return __builtin_memmove(to, from, size); }
void *memset(void *to, int byte, size_t size) { return __builtin_memset(to, byte, size); }
#else
__attribute__((no_builtin)) void *memmove(void *to, const void *from, size_t size) {
    char *out = (char *)to;
    const char *in = (const char *)from;
    if ((uintptr_t)out - (uintptr_t)in >= size) {
        for (size_t i = 0; i < size; i++) out[i] = in[i];
    } else {
        for (size_t i = size; i > 0; i--) out[i - 1] = in[i - 1];
    }
    return to;
}
__attribute__((no_builtin)) void *memcpy(void *to, const void *from, size_t size) { return memmove(to, from, size); }
__attribute__((no_builtin)) void *memset(void *to, int byte, size_t size) {
    for (size_t i = 0; i < size; i++) ((char *)to)[i] = (char)byte;
    return to;
}
#endif

__attribute__((no_builtin)) int memcmp(const void *left, const void *right, size_t size) {
    const unsigned char *a = (const unsigned char *)left, *b = (const unsigned char *)right;
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return 0;
}

__attribute__((no_builtin)) size_t strlen(const char *text) {
    size_t size = 0;
    while (text[size] != 0) size++;
    return size;
}

/* Compilers multiply 64-bit numbers with this where they check for an overflow. */
__attribute__((weak)) __int128 __multi3(__int128 left, __int128 right) {
    uint64_t a = (uint64_t)left, b = (uint64_t)right;
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t low = a0 * b0, middle = a1 * b0 + (low >> 32), other = a0 * b1 + (uint32_t)middle;
    uint64_t high = a1 * b1 + (middle >> 32) + (other >> 32);
    high += (uint64_t)((unsigned __int128)left >> 64) * b + a * (uint64_t)((unsigned __int128)right >> 64);
    return (__int128)(((unsigned __int128)high << 64) | (other << 32) | (uint32_t)low);
}

/* Blocks have 16 bytes before them that tell their size. Sizes are multiples of 16 up to 64, and beyond that four steps
 * to each power of two. */
typedef struct fsm_block {
    uint32_t size, list;
    struct fsm_block *next; /* In the list of free blocks of this size. */
    uint32_t unused;
} fsm_block;

extern unsigned char __heap_base;
static fsm_block *fsm_free_blocks[4 * 32];
static uintptr_t fsm_heap_at, fsm_heap_end; /* Never used memory: [at, end). */

static bool fsm_block_size(size_t wanted, uint32_t *size, uint32_t *list) {
    if (wanted > (UINT32_C(1) << 31) - sizeof(fsm_block)) return false;
    uint32_t needed = (uint32_t)(wanted + sizeof(fsm_block));
    if (needed <= 64) {
        *size = (needed + 15) & ~UINT32_C(15);
        *list = *size / 16;
    } else {
        uint32_t log = 31 - (uint32_t)__builtin_clz(needed - 1), step = UINT32_C(1) << (log - 2);
        *size = (needed + step - 1) & ~(step - 1);
        *list = 4 * log + (((needed - 1) >> (log - 2)) & 3);
    }
    return true;
}

static bool fsm_grow(uint32_t size) {
    if (fsm_heap_end == 0) {
        fsm_heap_at = ((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15;
        fsm_heap_end = (uintptr_t)__builtin_wasm_memory_size(0) << 16;
    }
    if (fsm_heap_end - fsm_heap_at >= size) return true;
    size_t pages = (size - (fsm_heap_end - fsm_heap_at) + 65535) >> 16;
    if (pages > 65535 - (fsm_heap_end >> 16)) return false; /* The end of 4 GiB is no address of 32 bits. */
    size_t before = __builtin_wasm_memory_grow(0, pages);
    if (before == SIZE_MAX) return false;
    FSM_CHECK(before << 16 == fsm_heap_end); /* Nobody else grows the memory. */
    fsm_heap_end = (before + pages) << 16;
    return true;
}

void *fsm_alloc(size_t wanted) {
    uint32_t size, list;
    if (!fsm_block_size(wanted, &size, &list)) return NULL;
    fsm_block *block = fsm_free_blocks[list];
    if (block != NULL) {
        fsm_free_blocks[list] = block->next;
        return block + 1;
    }
    if (!fsm_grow(size)) return NULL;
    block = (fsm_block *)fsm_heap_at;
    fsm_heap_at += size;
    block->size = size;
    block->list = list;
    return block + 1;
}

void fsm_free(void *memory) {
    if (memory == NULL) return;
    fsm_block *block = (fsm_block *)memory - 1;
    block->next = fsm_free_blocks[block->list];
    fsm_free_blocks[block->list] = block;
}

void *fsm_realloc(void *memory, size_t wanted) {
    size_t has = memory != NULL ? ((fsm_block *)memory - 1)->size - sizeof(fsm_block) : 0;
    if (memory != NULL && wanted <= has) return memory;
    void *larger = fsm_alloc(wanted);
    if (larger == NULL || memory == NULL) return larger;
    memcpy(larger, memory, has);
    fsm_free(memory);
    return larger;
}

#else

void *fsm_alloc(size_t size) { return malloc(size > 0 ? size : 1); }

void *fsm_realloc(void *block, size_t size) { return realloc(block, size > 0 ? size : 1); }

void fsm_free(void *block) { free(block); }

#endif

/* ---- Tests: a host that is good for one machine ---- */

#if defined(RAFT_FSM_NATIVE)

#ifdef __cplusplus
}
#endif
#include <setjmp.h>
#include <stdio.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char *data;
    size_t size, capacity;
} fsm_test_text;

static struct {
    fsm_slice input;
    fsm_test_text output, events, logs, snapshot;
    uint64_t index, time_ms, random;
    char actor[65];
    jmp_buf trap;
    bool in_call, counts_events, knows_actor;
#if defined(RAFT_FSM_ADOPT)
    fsm_slice old_memory;
    const fsm_test_global *old_globals;
    uint32_t old_globals_count;
#endif
} fsm_test;

static unsigned char *fsm_test_first_state; /* What the state was when the program began. */
bool fsm_test_promises = true;

static void fsm_test_fatal(const char *what) {
    fprintf(stderr, "%s\n", what);
    abort();
}

static void *fsm_test_memory(void *memory) {
    if (memory == NULL) fsm_test_fatal("the test has no memory");
    return memory;
}

static void fsm_test_append(fsm_test_text *text, const void *data, size_t size) {
    if (text->size + size + 1 > text->capacity) {
        text->capacity = 2 * (text->size + size + 1);
        text->data = (char *)fsm_test_memory(realloc(text->data, text->capacity));
    }
    if (size > 0) memcpy(text->data + text->size, data, size);
    text->size += size;
    text->data[text->size] = 0;
}

static void fsm_test_clear(fsm_test_text *text) {
    text->size = 0;
    fsm_test_append(text, NULL, 0);
}

static void fsm_test_line(fsm_test_text *text, fsm_slice word, fsm_slice rest) {
    fsm_test_append(text, word.data, word.size);
    fsm_test_append(text, " ", 1);
    fsm_test_append(text, rest.data, rest.size);
    fsm_test_append(text, "\n", 1);
}

static uint32_t fsm_host_read(void *to, uint32_t size) {
    if (size > fsm_test.input.size) size = (uint32_t)fsm_test.input.size;
    if (size > 0) memcpy(to, fsm_test.input.data, size);
    if (size > 0) fsm_test.input.data += size;
    fsm_test.input.size -= size;
    return size;
}

static void fsm_host_write(const void *from, uint32_t size) { fsm_test_append(&fsm_test.output, from, size); }

static uint64_t fsm_host_index(void) { return fsm_test.index; }

static uint32_t fsm_host_ordinal(void) { return 0; } /* Every command is an entry of its own here. */

static uint64_t fsm_host_time_ms(void) { return fsm_test.time_ms; }

static uint32_t fsm_host_actor(void *to, uint32_t size) {
    uint32_t all = fsm_test.knows_actor ? (uint32_t)strlen(fsm_test.actor) : 0;
    memcpy(to, fsm_test.actor, all < size ? all : size);
    return all;
}

#if defined(RAFT_FSM_ADOPT)
static uint64_t fsm_host_old_memory_size(void) { return fsm_test.old_memory.size; }

static void fsm_host_old_memory(uint64_t at, void *to, uint32_t size) {
    memcpy(to, fsm_test.old_memory.data + (size_t)at, size);
}

static int32_t fsm_host_old_global(uint32_t number, void *to) {
    if (number >= fsm_test.old_globals_count) return FSM_NO_GLOBAL;
    memcpy(to, fsm_test.old_globals[number].bits, 16);
    return fsm_test.old_globals[number].type;
}
#endif

static void fsm_host_random(void *to, uint32_t size) {
    for (uint32_t i = 0; i < size; i++) {
        uint64_t mixed = (fsm_test.random += UINT64_C(0x9e3779b97f4a7c15));
        mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        ((unsigned char *)to)[i] = (unsigned char)(mixed >> 56);
    }
}

static void fsm_host_emit(const void *topic, uint32_t topic_size, const void *from, uint32_t size) {
    fsm_slice word = {(const char *)topic, topic_size}, rest = {(const char *)from, size};
    if (fsm_test.counts_events) fsm_test_line(&fsm_test.events, word, rest);
}

static void fsm_host_log(uint32_t level, const void *from, uint32_t size) {
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    fsm_slice rest = {(const char *)from, size};
    fsm_test_line(&fsm_test.logs, fsm_text(levels[level < 1 ? 0 : level > 4 ? 3 : level - 1]), rest);
}

static void fsm_host_trap(void) {
    if (!fsm_test.in_call) fsm_test_fatal(fsm_test.logs.data);
    longjmp(fsm_test.trap, 1);
}

typedef enum {
    FSM_CALL_INIT,
    FSM_CALL_APPLY,
    FSM_CALL_QUERY,
    FSM_CALL_SNAPSHOT,
    FSM_CALL_RESTORE,
    FSM_CALL_CLASSIFY,
    FSM_CALL_CHECK,
    FSM_CALL_STATE_VERSION,
    FSM_CALL_RESTORES,
    FSM_CALL_ADOPT
} fsm_test_call;

static int32_t fsm_test_call_export(fsm_test_call call, uint32_t size) {
    switch (call) {
    case FSM_CALL_INIT: return fsm_export_init();
    case FSM_CALL_APPLY: return fsm_export_apply(size);
    case FSM_CALL_QUERY: return fsm_export_query(size);
    case FSM_CALL_SNAPSHOT: return fsm_export_snapshot();
    case FSM_CALL_RESTORE: return fsm_export_restore(size);
#if defined(RAFT_FSM_CLASSES)
    case FSM_CALL_CLASSIFY: return fsm_export_classify(size);
#endif
#if defined(RAFT_FSM_RULES)
    case FSM_CALL_CHECK: return fsm_export_check();
#endif
#if defined(RAFT_FSM_VERSIONS)
    case FSM_CALL_STATE_VERSION: return fsm_export_state_version();
    case FSM_CALL_RESTORES: return fsm_export_restores(size);
#endif
#if defined(RAFT_FSM_ADOPT)
    case FSM_CALL_ADOPT: return fsm_export_adopt(size);
#endif
    default: fsm_test_fatal("the machine does not have this call"); return -1;
    }
}

static fsm_outcome fsm_test_run(fsm_test_call call, fsm_slice input) {
    fsm_outcome outcome = {FSM_TEST_TRAPPED, {NULL, 0}};
    fsm_test.input = input;
    fsm_test.random = fsm_test.index * 16 + (uint64_t)call;
    fsm_test.knows_actor = call == FSM_CALL_APPLY || call == FSM_CALL_CLASSIFY;
    fsm_test.counts_events = call == FSM_CALL_INIT || call == FSM_CALL_APPLY;
    fsm_test_clear(&fsm_test.output);
    fsm_test_clear(&fsm_test.events);
    fsm_test_clear(&fsm_test.logs);
    fsm_test.in_call = true;
    if (setjmp(fsm_test.trap) == 0) {
        int32_t status = fsm_test_call_export(call, (uint32_t)input.size);
        outcome.kind = status == 0 ? FSM_TEST_OK : FSM_TEST_REJECTED;
    } else {
        fsm_out_used = 0;
        fsm_test_clear(&fsm_test.output);
    }
    fsm_test.in_call = false;
    if (outcome.kind != FSM_TEST_OK) fsm_test_clear(&fsm_test.events);
    outcome.output.data = fsm_test.output.data;
    outcome.output.size = fsm_test.output.size;
    return outcome;
}

static void fsm_test_drop(void) {
    if (fsm_this_machine.drop != NULL) fsm_this_machine.drop();
}

static void fsm_test_reset(void) {
    const fsm_machine *machine = &fsm_this_machine;
    fsm_export_marker();
    if (machine->state == NULL) fsm_test_fatal("tests need FSM_STATE in FSM_MACHINE");
    if (fsm_test_first_state == NULL) {
        fsm_test_first_state = (unsigned char *)fsm_test_memory(malloc(machine->state_size));
        memcpy(fsm_test_first_state, machine->state, machine->state_size);
    }
    memcpy(machine->state, fsm_test_first_state, machine->state_size);
}

void fsm_test_begin(void) {
    fsm_slice nothing = {NULL, 0};
    if (fsm_test_first_state != NULL) fsm_test_drop();
    fsm_test_reset();
    fsm_test.index = 1;
    fsm_test.actor[0] = 0;
    fsm_test.time_ms = UINT64_C(1700000000000);
    if (fsm_test_run(FSM_CALL_INIT, nothing).kind != FSM_TEST_OK) fsm_test_fatal("init failed");
}

int fsm_test_end(void) {
    fsm_test_text *texts[] = {&fsm_test.output, &fsm_test.events, &fsm_test.logs, &fsm_test.snapshot};
    fsm_test_drop();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        free(texts[i]->data);
        memset(texts[i], 0, sizeof *texts[i]);
    }
    if (fsm_this_machine.state != NULL) fsm_test_reset();
    free(fsm_test_first_state);
    fsm_test_first_state = NULL;
    return 0;
}

void fsm_test_advance(uint64_t ms) { fsm_test.time_ms += ms; }

void fsm_test_actor(const char *name) {
    size_t size = strlen(name);
    if (size >= sizeof fsm_test.actor) fsm_test_fatal("a name has at most 64 bytes");
    memcpy(fsm_test.actor, name, size + 1);
}

/* The snapshot, without touching what the last call left. The caller frees it. */
static fsm_test_text fsm_test_take_snapshot(void) {
    fsm_slice nothing = {NULL, 0};
    fsm_test_text output = fsm_test.output, events = fsm_test.events, logs = fsm_test.logs, taken;
    memset(&fsm_test.output, 0, sizeof output);
    memset(&fsm_test.events, 0, sizeof events);
    memset(&fsm_test.logs, 0, sizeof logs);
    if (fsm_test_run(FSM_CALL_SNAPSHOT, nothing).kind != FSM_TEST_OK) fsm_test_fatal("snapshot trapped");
    taken = fsm_test.output;
    free(fsm_test.events.data);
    free(fsm_test.logs.data);
    fsm_test.output = output;
    fsm_test.events = events;
    fsm_test.logs = logs;
    return taken;
}

fsm_slice fsm_test_snapshot(void) {
    free(fsm_test.snapshot.data);
    fsm_test.snapshot = fsm_test_take_snapshot();
    fsm_slice slice = {fsm_test.snapshot.data, fsm_test.snapshot.size};
    return slice;
}

/* Restores or adopts. */
static fsm_outcome fsm_test_replace(fsm_test_call call, fsm_slice input) {
    const fsm_machine *machine = &fsm_this_machine;
    unsigned char *old = (unsigned char *)fsm_test_memory(malloc(machine->state_size));
    unsigned char *restored = (unsigned char *)fsm_test_memory(malloc(machine->state_size));
    memcpy(old, machine->state, machine->state_size);
    fsm_test_reset();
    fsm_outcome outcome = fsm_test_run(call, input);
    memcpy(restored, machine->state, machine->state_size);
    /* Of the two states, drop the one that does not stay. */
    bool stays = outcome.kind == FSM_TEST_OK;
    memcpy(machine->state, stays ? old : restored, machine->state_size);
    fsm_test_drop();
    memcpy(machine->state, stays ? restored : old, machine->state_size);
    free(old);
    free(restored);
    return outcome;
}

fsm_outcome fsm_test_restore(fsm_slice snapshot) { return fsm_test_replace(FSM_CALL_RESTORE, snapshot); }

#if defined(RAFT_FSM_ADOPT)
fsm_outcome fsm_test_adopt(const unsigned char module[32], fsm_slice memory, const fsm_test_global *globals, uint32_t count) {
    fsm_slice nothing = {NULL, 0}, hash = {(const char *)module, 32};
    fsm_test.old_memory = memory;
    fsm_test.old_globals = globals;
    fsm_test.old_globals_count = count;
    fsm_outcome outcome = fsm_test_replace(FSM_CALL_ADOPT, hash);
    fsm_test.old_memory = nothing;
    fsm_test.old_globals_count = 0;
    return outcome;
}
#endif

void fsm_test_renew(void) {
    fsm_slice before = fsm_test_snapshot();
    fsm_outcome outcome = fsm_test_restore(before);
    if (outcome.kind != FSM_TEST_OK) {
        fprintf(stderr, "its own snapshot is refused: %s\n", outcome.output.data);
        abort();
    }
    fsm_test_text after = fsm_test_take_snapshot();
    if (after.size != before.size || memcmp(after.data, before.data, after.size) != 0)
        fsm_test_fatal("a restored machine writes another snapshot");
    free(after.data);
}

static fsm_outcome fsm_test_checked(fsm_test_call call, fsm_slice input) {
    if (!fsm_test_promises) return fsm_test_run(call, input);
    fsm_test_text before = fsm_test_take_snapshot();
    fsm_outcome outcome = fsm_test_run(call, input);
    if (outcome.kind == FSM_TEST_TRAPPED) {
        fsm_slice undone = {before.data, before.size};
        fsm_test_text logs = fsm_test.logs;
        memset(&fsm_test.logs, 0, sizeof logs);
        if (fsm_test_restore(undone).kind != FSM_TEST_OK) fsm_test_fatal("its own snapshot is refused");
        free(fsm_test.logs.data);
        fsm_test.logs = logs;
        fsm_test_clear(&fsm_test.output);
        outcome.output.data = fsm_test.output.data;
        outcome.output.size = 0;
    } else if (call != FSM_CALL_APPLY || outcome.kind == FSM_TEST_REJECTED) {
        fsm_test_text after = fsm_test_take_snapshot();
        if (after.size != before.size || memcmp(after.data, before.data, after.size) != 0)
            fsm_test_fatal(call == FSM_CALL_APPLY   ? "a rejected command changed the state"
                           : call == FSM_CALL_QUERY ? "a query changed the state"
                           : call == FSM_CALL_CLASSIFY ? "a classification changed the state"
                                                       : "a check changed the state");
        free(after.data);
    }
    free(before.data);
    return outcome;
}

fsm_outcome fsm_test_apply(fsm_slice command) {
    fsm_test.index++;
    return fsm_test_checked(FSM_CALL_APPLY, command);
}

#if defined(RAFT_FSM_CLASSES)
fsm_outcome fsm_test_classify(fsm_slice command) {
    fsm_test.index++;
    fsm_outcome outcome = fsm_test_checked(FSM_CALL_CLASSIFY, command);
    fsm_test.index--;
    return outcome;
}
#endif

#if defined(RAFT_FSM_RULES)
fsm_outcome fsm_test_check(void) {
    fsm_slice nothing = {NULL, 0};
    return fsm_test_checked(FSM_CALL_CHECK, nothing);
}
#endif

#if defined(RAFT_FSM_VERSIONS)
fsm_outcome fsm_test_state_version(void) {
    fsm_slice nothing = {NULL, 0};
    return fsm_test_run(FSM_CALL_STATE_VERSION, nothing);
}

fsm_outcome fsm_test_restores(fsm_slice version) { return fsm_test_run(FSM_CALL_RESTORES, version); }
#endif

fsm_outcome fsm_test_query(fsm_slice question) { return fsm_test_checked(FSM_CALL_QUERY, question); }

const char *fsm_test_events(void) { return fsm_test.events.data; }

const char *fsm_test_logs(void) { return fsm_test.logs.data; }

void fsm_test_expect(const char *file, int line, fsm_outcome outcome, fsm_test_kind kind, const char *output) {
    static const char *const kinds[] = {"ok", "rejected", "trapped"};
    if (outcome.kind == kind && fsm_is(outcome.output, output)) return;
    fprintf(stderr, "%s:%d: found %s \"%s\", expected %s \"%s\"\n", file, line, kinds[outcome.kind],
            outcome.output.data, kinds[kind], output);
    abort();
}

void fsm_test_same(const char *file, int line, const char *found, const char *expected) {
    if (strcmp(found, expected) == 0) return;
    fprintf(stderr, "%s:%d: found \"%s\", expected \"%s\"\n", file, line, found, expected);
    abort();
}

#endif

#ifdef __cplusplus
}
#endif
#endif /* RAFT_FSM_IMPLEMENTATION */
