/* Snapshots of random bytes, cut anywhere, are read by random programs: what `fsm_get...` gives must be what a plain
 * model over the whole snapshot gives, to the last problem. `make sanitize` runs it with sanitizers. */
#define RAFT_FSM_IMPLEMENTATION
#include "../raft_fsm.h"

#include <stdio.h>

#define SNAPSHOT_MAX 14000
#define STEPS_MAX 40
#define BYTES_MAX 10000

typedef enum { GET_U8, GET_U32, GET_U64, GET_I64, GET_BYTES, GET_COUNT, EXPECT_MAGIC, FAIL, KINDS } kind;

static struct {
    kind kind;
    uint32_t size, most, each;
} steps[STEPS_MAX];
static size_t steps_count;

static unsigned char bytes[SNAPSHOT_MAX];
static size_t size;

/* The model: where the next byte is, and the first problem. */
static size_t at;
static const char *problem;

static uint64_t random_state;
static unsigned long rejected, accepted;
static struct {
    int unused;
} state;

static uint32_t below(uint32_t limit) {
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((random_state >> 33) % limit);
}

static void note(const char *found) {
    if (problem == NULL) problem = found;
}

/* So many bytes of the snapshot, or zeros. */
static const unsigned char *model_bytes(size_t wanted) {
    static const unsigned char zeros[BYTES_MAX];
    if (wanted > size - at) note("the snapshot is too short");
    if (problem != NULL) return zeros;
    at += wanted;
    return bytes + at - wanted;
}

static uint64_t model_number(size_t width) {
    const unsigned char *from = model_bytes(width);
    uint64_t number = 0;
    for (size_t i = width; i > 0; i--) number = number << 8 | from[i - 1];
    return number;
}

static uint32_t model_count(uint32_t most, uint32_t each) {
    uint32_t count = (uint32_t)model_number(4);
    if (count > most) note("a count in the snapshot is too large");
    if ((uint64_t)count * each > size - at) note("the snapshot is too short");
    return problem == NULL ? count : 0;
}

static void run(fsm_reader *in, size_t number) {
    static const char *const magics[] = {"", "A", "ABC1"};
    kind kind = steps[number].kind;
    if (kind == GET_U8) FSM_CHECK(fsm_get_u8(in) == model_number(1));
    if (kind == GET_U32) FSM_CHECK(fsm_get_u32(in) == model_number(4));
    if (kind == GET_U64) FSM_CHECK(fsm_get_u64(in) == model_number(8));
    if (kind == GET_I64) FSM_CHECK((uint64_t)fsm_get_i64(in) == model_number(8));
    if (kind == GET_BYTES) {
        /* From the heap, so that one byte too many is seen. */
        unsigned char *found = (unsigned char *)fsm_alloc(steps[number].size);
        FSM_CHECK(found != NULL);
        fsm_get_bytes(in, found, steps[number].size);
        FSM_CHECK(memcmp(found, model_bytes(steps[number].size), steps[number].size) == 0);
        fsm_free(found);
    }
    if (kind == GET_COUNT) {
        uint32_t count = fsm_get_count(in, steps[number].most, steps[number].each);
        FSM_CHECK(count == model_count(steps[number].most, steps[number].each));
        FSM_CHECK(count <= steps[number].most && (uint64_t)count * steps[number].each <= in->left);
    }
    if (kind == EXPECT_MAGIC) {
        const char *magic = magics[steps[number].size % 3];
        fsm_expect(in, magic);
        for (; *magic != 0; magic++)
            if (model_number(1) != (unsigned char)*magic) note("not a snapshot that this machine can read");
    }
    if (kind == FAIL) {
        fsm_fail(in, "as asked");
        note("as asked");
    }
}

static fsm_status restore(fsm_reader *in) {
    at = 0;
    problem = NULL;
    for (size_t i = 0; i < steps_count; i++) {
        run(in, i);
        FSM_CHECK(fsm_good(in) == (problem == NULL));
        FSM_CHECK(problem != NULL || in->left == size - at);
    }
    if (at < size) note("bytes follow the snapshot");
    return fsm_end(in);
}

static fsm_status refuse(fsm_slice command) {
    (void)command;
    return fsm_reject("only snapshots are read here");
}

static void snapshot(void) {}

FSM_MACHINE(FSM_STATE(state), .apply = refuse, .snapshot = snapshot, .restore = restore)

/* Programs that read exactly what is there are rare by chance. */
static void take_all(void) {
    static const size_t widths[] = {1, 4, 8, 8};
    size_t before = 0;
    for (size_t i = 0; i + 1 < steps_count; i++) {
        if (steps[i].kind > GET_BYTES) steps[i].kind = GET_U8;
        before += steps[i].kind == GET_BYTES ? steps[i].size : widths[steps[i].kind];
    }
    if (steps_count == 0 || before > size || size - before > BYTES_MAX) return;
    steps[steps_count - 1].kind = GET_BYTES;
    steps[steps_count - 1].size = (uint32_t)(size - before);
}

static void make_case(void) {
    size = below(3) == 0 ? below(SNAPSHOT_MAX + 1) : below(64);
    for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)below(256);
    /* Counts that are small, and magics that are right, or nothing would be read beyond them; and counts that are 0 again
     * if they are multiplied in 32 bits. */
    static const char *const likely[] = {"ABC1", "ABC1", "\x03\0\0", "\x03\0\0", "\0\0\0\x80", "\0\0\0\x40"};
    for (size_t i = 0; i + 4 <= size; i += 4)
        if (below(2) == 0) memcpy(bytes + i, likely[below(6)], 4);
    steps_count = below(STEPS_MAX + 1);
    for (size_t i = 0; i < steps_count; i++) {
        steps[i].kind = (kind)(below(100) == 0 ? FAIL : below(FAIL));
        steps[i].size = below(4) == 0 ? below(BYTES_MAX + 1) : below(16);
        steps[i].most = below(2) == 0 ? UINT32_MAX : below(8);
        steps[i].each = below(4) == 0 ? UINT32_MAX : below(8);
    }
    if (below(2) == 0) take_all();
}

int main(int arguments, char **argument) {
    unsigned long cases = arguments > 1 ? strtoul(argument[1], NULL, 10) : 20000;
    random_state = arguments > 2 ? strtoul(argument[2], NULL, 10) : 1;
    fsm_test_begin();
    for (unsigned long i = 0; i < cases; i++) {
        make_case();
        fsm_slice whole = {(const char *)bytes, size};
        fsm_outcome outcome = fsm_test_restore(whole);
        if (outcome.kind == FSM_TEST_TRAPPED) {
            fprintf(stderr, "case %lu: %s", i, fsm_test_logs());
            abort();
        }
        FSM_CHECK(outcome.kind == (problem == NULL ? FSM_TEST_OK : FSM_TEST_REJECTED));
        FSM_CHECK(problem == NULL || fsm_is(outcome.output, problem));
        ++*(problem == NULL ? &accepted : &rejected);
    }
    FSM_CHECK(cases < 1000 || (accepted > cases / 100 && rejected > cases / 100));
    printf("%lu snapshots read as the model reads them: %lu accepted, %lu rejected\n", cases, accepted, rejected);
    return fsm_test_end();
}
