// The probe of guest-sdk/conformance/PROBE.md: it uses everything that the SDK has.
#define RAFT_FSM_IMPLEMENTATION
#define RAFT_FSM_CLASSES
#define RAFT_FSM_RULES
#define RAFT_FSM_VERSIONS
#define RAFT_FSM_ADOPT
#include "../raft_fsm.hpp"

#include <algorithm>
#include <array>

namespace {

constexpr std::uint64_t MOST = 16777216, MOST_RANDOM = 1024;
constexpr std::size_t PIECE = 4096;

fsm::Status random(std::string_view text) {
    std::array<unsigned char, MOST_RANDOM> bytes;
    std::optional<std::uint64_t> size = fsm::parse_u64(text, MOST_RANDOM);
    if (!size) return fsm::reject("random takes a number from 0 to 1024");
    fsm::random(bytes.data(), static_cast<std::size_t>(*size));
    fsm::put_hex(bytes.data(), static_cast<std::size_t>(*size));
    return fsm::ok();
}

bool emit(std::string_view rest) {
    std::string_view topic = fsm::word(rest);
    if (!topic.empty()) fsm::emit(topic, rest);
    return !topic.empty();
}

fsm::Status log_line(std::string_view rest) {
    constexpr std::pair<std::string_view, fsm::Level> levels[] = {{"error", fsm::Level::error},
                                                                  {"warn", fsm::Level::warn},
                                                                  {"info", fsm::Level::info},
                                                                  {"debug", fsm::Level::debug}};
    std::string_view name = fsm::word(rest);
    for (const auto &[known, level] : levels) {
        if (name != known) continue;
        fsm::log(level, rest);
        return fsm::ok();
    }
    return fsm::reject("a level is error, warn, info or debug");
}

// What commands and queries have in common.
fsm::Status common(std::string_view word, std::string_view rest) {
    if (word == "echo") return fsm::ok(rest);
    if (word == "reject") return fsm::reject(rest);
    if (word == "trap") fsm::panic("trapped as asked");
    if (word == "index") return fsm::ok(fsm::index());
    if (word == "actor") return fsm::ok(fsm::actor());
    if (word == "time") return fsm::ok(fsm::time_ms());
    if (word == "random") return random(rest);
    return fsm::reject("unknown: ", word);
}

class Probe {
public:
    fsm::Status apply(std::string_view rest) {
        std::string_view word = fsm::word(rest);
        if (word == "emit") return emit(rest) ? fsm::ok() : fsm::reject("emit takes a topic and a text");
        if (word == "emit-reject") return fsm::reject(emit(rest) ? "no" : "emit-reject takes a topic and a text");
        if (word == "log") return log_line(rest);
        if (word == "set") return replace(std::string(rest));
        if (word == "fill") return fill(rest);
        return common(word, rest);
    }

    fsm::Status query(std::string_view rest) const {
        std::string_view word = fsm::word(rest);
        if (word == "get") return fsm::ok(state);
        if (word == "length") return fsm::ok(state.size());
        if (word == "checksum") return fsm::ok(checksum());
        return common(word, rest);
    }

    const char *classify(std::string_view rest) const {
        constexpr const char *words[] = {"echo", "reject",      "trap", "index", "time", "random",
                                         "emit", "emit-reject", "log",  "set",   "fill", "actor"};
        std::string_view word = fsm::word(rest);
        auto known = std::find(std::begin(words), std::end(words), word);
        return known == std::end(words) ? nullptr : *known;
    }

    void snapshot(fsm::Writer &out) const {
        out.magic("PRB1");
        out.u32(static_cast<std::uint32_t>(state.size()));
        for (std::string_view rest = state; !rest.empty(); rest.remove_prefix(std::min(PIECE, rest.size())))
            out.bytes(rest.substr(0, PIECE));
    }

    fsm::Status restore(fsm::Reader &in) {
        in.expect("PRB1");
        state = in.sized(UINT32_MAX);
        return in.end();
    }

    fsm::Status check() const { return state == "broken" ? fsm::reject("the state is broken") : fsm::ok(); }

    static constexpr const char *state_version = "probe/1";

    static fsm::Status restores(std::string_view version) {
        return version == state_version ? fsm::ok() : fsm::reject("not a format of the probe: ", version);
    }

    // Keeps what there is of the old one: see PROBE.md.
    fsm::Status adopt(fsm::Old &old) {
        state = old.module();
        for (int i = 0; i < 8; i++) state += static_cast<char>(old.size() >> (8 * i));
        state += old.text(0, 16);
        for (std::uint32_t number = 0; number < 2; number++) {
            unsigned char bits[16];
            state += static_cast<char>(old.global(number, bits));
            state.append(reinterpret_cast<const char *>(bits), sizeof bits);
        }
        return old.end();
    }

private:
    fsm::Status replace(std::string next) {
        state = std::move(next);
        return fsm::ok(state.size());
    }

    fsm::Status fill(std::string_view text) {
        std::optional<std::uint64_t> size = fsm::parse_u64(text, MOST);
        if (!size) return fsm::reject("fill takes a number from 0 to 16777216");
        std::string next(static_cast<std::size_t>(*size), '\0');
        for (std::size_t i = 0; i < next.size(); i++) next[i] = static_cast<char>(i % 251);
        return replace(std::move(next));
    }

    std::uint32_t checksum() const {
        std::uint32_t hash = 2166136261u;
        for (char byte : state) hash = (hash ^ static_cast<unsigned char>(byte)) * 16777619u;
        return hash;
    }

    std::string state;
};

} // namespace

RAFT_FSM_MACHINE(Probe)
