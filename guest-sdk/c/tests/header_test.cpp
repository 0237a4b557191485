// The header is C++ as well: raft_fsm.hpp is built on it.
#define RAFT_FSM_IMPLEMENTATION
#include "../raft_fsm.h"

namespace {

fsm_slice state;

fsm_status same(fsm_slice bytes) {
    fsm_put_slice(bytes);
    return FSM_OK;
}

void snapshot() { fsm_put("X"); }

fsm_status restore(fsm_reader *in) {
    fsm_expect(in, "X");
    return fsm_end(in);
}

} // namespace

FSM_MACHINE(FSM_STATE(state), .init = nullptr, .apply = same, .query = same, .snapshot = snapshot, .restore = restore,
            .drop = nullptr)

int main() {
    fsm_test_begin();
    fsm_expect_apply("a", "a");
    fsm_expect_query("b", "b");
    fsm_test_renew();
    return fsm_test_end();
}
