// A counter: commands are decimal numbers, which are added; an empty query gives the sum.
#define RAFT_FSM_IMPLEMENTATION
#include "sdk/raft_fsm.hpp"

namespace {

// At most 18 digits, which cannot overflow.
std::optional<std::int64_t> parse(std::string_view text) {
    bool negative = !text.empty() && text.front() == '-';
    if (negative) text.remove_prefix(1);
    std::optional<std::uint64_t> magnitude = fsm::parse_u64(text, 999'999'999'999'999'999);
    if (text.size() > 18 || !magnitude) return std::nullopt;
    std::int64_t number = static_cast<std::int64_t>(*magnitude);
    return negative ? -number : number;
}

class Counter {
public:
    // Only the log decides: no clock, no randomness and no order but those of the SDK and the command.
    fsm::Status apply(std::string_view command) {
        std::optional<std::int64_t> number = parse(command);
        if (!number) return fsm::reject("a command is a decimal number of at most 18 digits, such as 5 or -3");
        if (*number > 0 ? sum > INT64_MAX - *number : sum < INT64_MIN - *number)
            return fsm::reject("the counter would overflow");
        // Rejected means unchanged: check first, as above, and change after.
        sum += *number;
        return fsm::ok(sum);
    }

    fsm::Status query(std::string_view question) const {
        if (!question.empty()) return fsm::reject("a query of the counter is empty");
        return fsm::ok(sum);
    }

    // Snapshots are versioned: the 1 of the magic. A later release must read what this one wrote.
    void snapshot(fsm::Writer &out) const {
        out.magic("CNT1");
        out.i64(sum);
    }

    fsm::Status restore(fsm::Reader &in) {
        in.expect("CNT1");
        sum = in.i64();
        return in.end();
    }

private:
    std::int64_t sum = 0; // All that survives a call.
};

} // namespace

RAFT_FSM_MACHINE(Counter)
