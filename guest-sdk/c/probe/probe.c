/* The probe of guest-sdk/conformance/PROBE.md: it uses everything that the SDK has. */
#define RAFT_FSM_IMPLEMENTATION
#define RAFT_FSM_CLASSES
#define RAFT_FSM_RULES
#define RAFT_FSM_VERSIONS
#define RAFT_FSM_ADOPT
#include "../raft_fsm.h"

enum { MOST = 16777216, MOST_RANDOM = 1024, PIECE = 4096 };

static struct {
    char *data;
    uint32_t size;
} state;

static fsm_status unknown(fsm_slice word) {
    fsm_reject("unknown: ");
    fsm_put_slice(word);
    return FSM_REJECTED;
}

static fsm_status answer_decimal(uint64_t number) {
    fsm_put_decimal(number);
    return FSM_OK;
}

static fsm_status answer_random(fsm_slice text) {
    unsigned char bytes[MOST_RANDOM];
    uint64_t size;
    if (!fsm_parse_u64(text, MOST_RANDOM, &size)) return fsm_reject("random takes a number from 0 to 1024");
    fsm_random(bytes, (size_t)size);
    fsm_put_hex(bytes, (size_t)size);
    return FSM_OK;
}

static fsm_status emit(fsm_slice rest, fsm_status status) {
    fsm_slice topic = fsm_word(&rest);
    if (topic.size == 0) return fsm_reject("emit takes a topic and a text");
    fsm_emit(topic, rest);
    return status == FSM_OK ? FSM_OK : fsm_reject("no");
}

static fsm_status log_line(fsm_slice rest) {
    static const char *const names[] = {"error", "warn", "info", "debug"};
    fsm_slice name = fsm_word(&rest);
    for (int i = 0; i < 4; i++) {
        if (!fsm_is(name, names[i])) continue;
        fsm_log_slice((fsm_level)(i + 1), rest);
        return FSM_OK;
    }
    return fsm_reject("a level is error, warn, info or debug");
}

/* Room for a new state, or NULL; the old one stays until `replace`. */
static fsm_status replace(char *data, uint32_t size) {
    fsm_free(state.data);
    state.data = data;
    state.size = size;
    return answer_decimal(size);
}

static fsm_status set(fsm_slice text) {
    char *data = fsm_alloc(text.size);
    if (data == NULL) return fsm_reject("there is no memory for that");
    if (text.size > 0) memcpy(data, text.data, text.size);
    return replace(data, (uint32_t)text.size);
}

static fsm_status fill(fsm_slice text) {
    uint64_t size;
    if (!fsm_parse_u64(text, MOST, &size)) return fsm_reject("fill takes a number from 0 to 16777216");
    char *data = fsm_alloc((size_t)size);
    if (data == NULL) return fsm_reject("there is no memory for that");
    for (uint64_t i = 0; i < size; i++) data[i] = (char)(i % 251);
    return replace(data, (uint32_t)size);
}

/* What commands and queries have in common. */
static fsm_status common(fsm_slice word, fsm_slice rest) {
    if (fsm_is(word, "echo")) {
        fsm_put_slice(rest);
        return FSM_OK;
    }
    if (fsm_is(word, "reject")) {
        fsm_reject("");
        fsm_put_slice(rest);
        return FSM_REJECTED;
    }
    if (fsm_is(word, "trap")) fsm_panic("trapped as asked");
    if (fsm_is(word, "index")) return answer_decimal(fsm_index());
    if (fsm_is(word, "actor")) {
        fsm_put_slice(fsm_actor());
        return FSM_OK;
    }
    if (fsm_is(word, "time")) return answer_decimal(fsm_time_ms());
    if (fsm_is(word, "random")) return answer_random(rest);
    return unknown(word);
}

static fsm_status apply(fsm_slice command) {
    fsm_slice rest = command, word = fsm_word(&rest);
    if (fsm_is(word, "emit")) return emit(rest, FSM_OK);
    if (fsm_is(word, "emit-reject")) return emit(rest, FSM_REJECTED);
    if (fsm_is(word, "log")) return log_line(rest);
    if (fsm_is(word, "set")) return set(rest);
    if (fsm_is(word, "fill")) return fill(rest);
    return common(word, rest);
}

static fsm_status query(fsm_slice question) {
    fsm_slice rest = question, word = fsm_word(&rest);
    if (fsm_is(word, "get")) {
        fsm_put_bytes(state.data, state.size);
        return FSM_OK;
    }
    if (fsm_is(word, "length")) return answer_decimal(state.size);
    if (fsm_is(word, "checksum")) {
        uint32_t hash = UINT32_C(2166136261);
        for (uint32_t i = 0; i < state.size; i++) hash = (hash ^ (unsigned char)state.data[i]) * UINT32_C(16777619);
        return answer_decimal(hash);
    }
    return common(word, rest);
}

static const char *classify(fsm_slice command) {
    static const char *const words[] = {"echo", "reject",      "trap", "index", "time", "random",
                                        "emit", "emit-reject", "log",  "set",   "fill", "actor"};
    fsm_slice rest = command, word = fsm_word(&rest);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (fsm_is(word, words[i])) return words[i];
    return NULL;
}

static void snapshot(void) {
    fsm_put("PRB1");
    fsm_put_u32(state.size);
    for (uint32_t at = 0; at < state.size; at += PIECE)
        fsm_put_bytes(state.data + at, state.size - at < PIECE ? state.size - at : PIECE);
}

static fsm_status restore(fsm_reader *in) {
    fsm_expect(in, "PRB1");
    uint32_t size = fsm_get_count(in, UINT32_MAX, 1);
    char *data = fsm_alloc(size);
    if (data == NULL) return fsm_reject("there is no memory for that");
    for (uint32_t at = 0; at < size; at += PIECE) fsm_get_bytes(in, data + at, size - at < PIECE ? size - at : PIECE);
    state.data = data;
    state.size = size;
    return fsm_end(in);
}

static fsm_status check(void) {
    fsm_slice bytes = {state.data, state.size};
    return fsm_is(bytes, "broken") ? fsm_reject("the state is broken") : FSM_OK;
}

static fsm_status restores(fsm_slice version) {
    if (fsm_is(version, "probe/1")) return FSM_OK;
    fsm_reject("not a format of the probe: ");
    fsm_put_slice(version);
    return FSM_REJECTED;
}

/* Keeps what there is of the old one: see PROBE.md. */
static fsm_status adopt(fsm_old *old) {
    enum { START = 16, GLOBALS = 2, SIZE = 32 + 8 + START + GLOBALS * 17 };
    char *data = fsm_alloc(SIZE), *at = data;
    if (data == NULL) return fsm_reject("there is no memory for that");
    state.data = data;
    state.size = SIZE;
    memcpy(at, old->module, 32);
    at += 32;
    for (int i = 0; i < 8; i++) *at++ = (char)(old->size >> (8 * i));
    fsm_old_bytes(old, 0, at, START);
    at += START;
    for (uint32_t number = 0; number < GLOBALS; number++, at += 17)
        *at = (char)fsm_old_global(old, number, (unsigned char *)at + 1);
    return fsm_old_end(old);
}

static void drop(void) { fsm_free(state.data); }

FSM_MACHINE(FSM_STATE(state), .apply = apply, .query = query, .snapshot = snapshot, .restore = restore, .drop = drop,
            .classify = classify, .check = check, .state_version = "probe/1", .restores = restores, .adopt = adopt)
