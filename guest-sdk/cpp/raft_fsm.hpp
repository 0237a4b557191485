// raft_fsm.hpp: state machines for raft-host in C++17 or later, over raft_fsm.h. This comment is the manual.
//
// A machine is a class. It holds the whole state, and one line makes it the module's:
//
//     #define RAFT_FSM_IMPLEMENTATION            // in exactly one file of the module
//     #include "sdk/raft_fsm.hpp"
//
//     class Adder {
//     public:
//         fsm::Status apply(std::string_view command) {
//             std::optional<std::uint64_t> number = fsm::parse_u64(command, 1000);
//             if (!number) return fsm::reject("not a number up to 1000");
//             sum += *number;                    // rejected means unchanged: check first, change after
//             return fsm::ok(sum);
//         }
//         fsm::Status query(std::string_view) const { return fsm::ok(sum); }
//         void snapshot(fsm::Writer &out) const { out.magic("ADD1"); out.u64(sum); }
//         fsm::Status restore(fsm::Reader &in) { in.expect("ADD1"); sum = in.u64(); return in.end(); }
//     private:
//         std::uint64_t sum = 0;
//     };
//     RAFT_FSM_MACHINE(Adder)
//
// Build it with libc++ and wasi-libc (both come with Zig; Debian: wasi-libc libc++-19-dev-wasm32 libc++abi-19-dev-wasm32
// libclang-rt-19-dev-wasm32), and without exceptions:
//
//     clang++ --target=wasm32-wasi -mexec-model=reactor -std=c++20 -O2 -fno-exceptions -fno-rtti -mbulk-memory
//         -Wl,--stack-first -Wl,-z,stack-size=262144 -Wl,--strip-all -o adder.wasm adder.cpp
//
// Calls. The host calls one function at a time. The class needs a constructor without arguments. `query` and `snapshot` are
// const, so that the compiler keeps their promise to change nothing; `query` may be missing. `fsm::Status init()`, if there
// is one, runs once in the life of a cluster. `restore` runs on a new object. Views of a command end with its call.
//
// Classes. With `#define RAFT_FSM_CLASSES` before this header a class also has `const char *classify(std::string_view command)
// const`, which names the class of a command, or gives nullptr for one that has none: see raft_fsm.h.
//
// Upgrades. Likewise with `#define RAFT_FSM_RULES` a class also has `fsm::Status check() const`, which says whether the state keeps
// its own rules; with `#define RAFT_FSM_VERSIONS` `static constexpr const char *state_version = "adder/1"`, the name of the format
// of its snapshots, and, if it takes others too, `static fsm::Status restores(std::string_view version)`; with
// `#define RAFT_FSM_ADOPT` `fsm::Status adopt(fsm::Old &old)`, which runs on a new object instead of `restore` and builds the state
// from the exact memory of another module: see raft_fsm.h.
//
// Answers. `fsm::ok(pieces...)` and `fsm::reject(pieces...)` take texts and integers, and put them one after another; a long
// answer is put piece by piece with `fsm::put`. All goes through a buffer of 4 KiB. `fsm::reject` throws away an answer that
// was begun, if it is still in the buffer.
//
// Restoring. A Reader streams, little-endian. After the first error (too short, wrong magic, a count that is too large,
// `fail`) it gives zeros and empty texts, so a loop over `count` ends by itself, and only `end` has to be asked. It never
// allocates for a length that it did not check first.
//
// Breaking. There are no exceptions: `fsm::panic`, RAFT_FSM_CHECK, `new` without memory, and what the standard library would
// throw all log a message and trap, and the host undoes the whole call. Reject what is the client's fault: it is faster.
//
// Determinism. Use std::map or std::set where the order is seen: that of a hash table is not part of the state. Time and
// randomness come from here. <iostream>, <cstdio>, <fstream>, <chrono> clocks and std::random_device link functions of WASI
// that a state machine has no use for.
#ifndef RAFT_FSM_HPP
#define RAFT_FSM_HPP

#if __has_include("raft_fsm.h")
#include "raft_fsm.h"
#else
#include "../c/raft_fsm.h"
#endif

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace fsm {

// ---- Where a call stands ----

inline std::uint64_t index() { return fsm_index(); }     // Of the entry; in queries, of the last one applied.
inline std::uint32_t ordinal() { return fsm_ordinal(); } // Which of its entry's commands, from 0 on.
inline std::uint64_t time_ms() { return fsm_time_ms(); } // The log's clock since the Unix epoch. It never goes back.
inline std::string_view actor() {                        // Who gave the command; empty if nobody is known. Ends with the call.
    fsm_slice name = fsm_actor();
    return {name.data, name.size};
}
inline void random(void *to, std::size_t size) { fsm_random(to, size); } // Equal on all replicas. Not for secrets.
inline std::uint64_t random_u64() { return fsm_random_u64(); }

namespace detail {
inline fsm_slice slice(std::string_view text) { return fsm_slice{text.data(), text.size()}; }
inline std::string_view view(fsm_slice slice) {
    return slice.size == 0 ? std::string_view() : std::string_view(slice.data, slice.size);
}
} // namespace detail

// ---- Events, log, breaking ----

enum class Level { error = FSM_ERROR, warn = FSM_WARN, info = FSM_INFO, debug = FSM_DEBUG };

inline void log(Level level, std::string_view text) {
    fsm_log_slice(static_cast<fsm_level>(level), detail::slice(text));
}

// Counts if the command is accepted.
inline void emit(std::string_view topic, std::string_view payload) {
    fsm_emit(detail::slice(topic), detail::slice(payload));
}

#if defined(RAFT_FSM_NATIVE) && defined(__cpp_exceptions)
namespace detail {
struct Panic { // In tests the stack unwinds, so that nothing leaks.
    std::string message;
};
} // namespace detail
[[noreturn]] inline void panic(std::string_view message) { throw detail::Panic{std::string(message)}; }
#elif defined(RAFT_FSM_NATIVE)
[[noreturn]] inline void panic(std::string_view message) { fsm_panic(std::string(message).c_str()); }
#else
[[noreturn]] inline void panic(std::string_view message) {
    log(Level::error, message);
    __builtin_trap();
}
#endif

#define RAFT_FSM_CHECK(condition) ((condition) ? (void)0 : ::fsm::panic("does not hold: " #condition))

// ---- Answers and reasons ----

// How a call ended; made by `ok`, `reject` and `Reader::end` alone.
class [[nodiscard]] Status {
public:
    bool is_ok() const { return value == FSM_OK; }
    fsm_status raw() const { return value; }
    static Status from_raw(fsm_status value) { return Status(value); }

private:
    explicit Status(fsm_status value) : value(value) {}
    fsm_status value;
};

namespace detail {
template <typename Piece> void put_piece(const Piece &piece) {
    if constexpr (std::is_convertible_v<const Piece &, std::string_view>) {
        fsm_put_slice(slice(std::string_view(piece)));
    } else {
        static_assert(std::is_integral_v<Piece> && !std::is_same_v<Piece, bool> && !std::is_same_v<Piece, char>,
                      "a piece is a text or an integer");
        if constexpr (std::is_signed_v<Piece>)
            fsm_put_signed(static_cast<std::int64_t>(piece));
        else
            fsm_put_decimal(static_cast<std::uint64_t>(piece));
    }
}
} // namespace detail

// Texts as they are and integers in decimal.
template <typename... Pieces> void put(const Pieces &...pieces) { (detail::put_piece(pieces), ...); }

inline void put_hex(const void *bytes, std::size_t size) { fsm_put_hex(bytes, size); } // Lower case.

template <typename... Pieces> Status ok(const Pieces &...pieces) {
    put(pieces...);
    return Status::from_raw(FSM_OK);
}

template <typename... Pieces> Status reject(const Pieces &...pieces) {
    fsm_status rejected = fsm_reject("");
    put(pieces...);
    return Status::from_raw(rejected);
}

// ---- Snapshots ----

class Writer {
public:
    void magic(std::string_view text) { bytes(text); }
    void bytes(std::string_view bytes) { fsm_put_slice(detail::slice(bytes)); }
    void u8(std::uint8_t number) { fsm_put_u8(number); }
    void u32(std::uint32_t number) { fsm_put_u32(number); } // Little-endian, as all numbers.
    void u64(std::uint64_t number) { fsm_put_u64(number); }
    void i64(std::int64_t number) { fsm_put_i64(number); }
    void sized(std::string_view bytes) { fsm_put_sized(detail::slice(bytes)); } // The size as a u32, and the bytes.
};

class Reader {
public:
    explicit Reader(fsm_reader *in) : in(in) {}
    Reader(const Reader &) = delete;
    Reader &operator=(const Reader &) = delete;

    void expect(const char *magic) { fsm_expect(in, magic); }
    std::uint8_t u8() { return fsm_get_u8(in); }
    std::uint32_t u32() { return fsm_get_u32(in); }
    std::uint64_t u64() { return fsm_get_u64(in); }
    std::int64_t i64() { return fsm_get_i64(in); }
    void bytes(void *to, std::size_t size) { fsm_get_bytes(in, to, size); }

    // A u32 that counts things of at least `each` bytes: 0 and an error if it is above `most` or more than can follow.
    std::uint32_t count(std::uint32_t most, std::uint32_t each) { return fsm_get_count(in, most, each); }

    // What Writer::sized wrote, if it has at most so many bytes.
    std::string sized(std::uint32_t most) {
        std::string text(count(most, 1), '\0');
        if (!text.empty()) bytes(&text[0], text.size());
        return text;
    }

    void fail(const char *problem) { fsm_fail(in, problem); } // Keeps the first.
    bool good() const { return fsm_good(in); }
    Status end() { return Status::from_raw(fsm_end(in)); }

private:
    fsm_reader *in;
};

#if defined(RAFT_FSM_ADOPT)
// The memory of another module's instance, for `adopt`. After the first error it gives zeros, and `end` rejects with it.
class Old {
public:
    explicit Old(fsm_old *old) : old(old) {}
    Old(const Old &) = delete;
    Old &operator=(const Old &) = delete;

    // SHA-256 of its module, 32 bytes: reject all but those whose layout you know.
    std::string_view module() const { return {reinterpret_cast<const char *>(old->module), sizeof old->module}; }
    std::uint64_t size() const { return old->size; }
    void bytes(std::uint64_t at, void *to, std::size_t size) { fsm_old_bytes(old, at, to, size); }
    std::uint8_t u8(std::uint64_t at) { return fsm_old_u8(old, at); }
    std::uint32_t u32(std::uint64_t at) { return fsm_old_u32(old, at); }
    std::uint64_t u64(std::uint64_t at) { return fsm_old_u64(old, at); }

    // So many bytes; none if they are not there, which is seen before anything is allocated.
    std::string text(std::uint64_t at, std::size_t size) {
        std::string text(fsm_old_has(old, at, size) ? size : 0, '\0');
        if (!text.empty()) bytes(at, &text[0], text.size());
        return text;
    }

    // The type of the number-th mutable global, and its bits, little-endian.
    fsm_type global(std::uint32_t number, unsigned char (&bits)[16]) { return fsm_old_global(old, number, bits); }

    void fail(const char *problem) { fsm_old_fail(old, problem); } // Keeps the first.
    bool good() const { return old->problem == nullptr; }
    Status end() { return Status::from_raw(fsm_old_end(old)); }

private:
    fsm_old *old;
};
#endif

// ---- Text ----

// Takes the bytes up to the first space, and that space, off `rest`.
inline std::string_view word(std::string_view &rest) {
    std::size_t size = rest.find(' ');
    std::string_view taken = rest.substr(0, size);
    rest.remove_prefix(size == std::string_view::npos ? rest.size() : size + 1);
    return taken;
}

// A decimal number without a sign, of 1 to 20 digits and at most `most`.
inline std::optional<std::uint64_t> parse_u64(std::string_view text, std::uint64_t most) {
    std::uint64_t number = 0;
    if (!fsm_parse_u64(detail::slice(text), most, &number)) return std::nullopt;
    return number;
}

// ---- The machine ----

namespace detail {

template <typename Machine, typename = void> struct has_init : std::false_type {};
template <typename Machine>
struct has_init<Machine, std::void_t<decltype(std::declval<Machine &>().init())>> : std::true_type {};

template <typename Machine, typename = void> struct has_query : std::false_type {};
template <typename Machine>
struct has_query<Machine, std::void_t<decltype(std::declval<Machine &>().query(std::string_view()))>>
    : std::true_type {};

#if defined(RAFT_FSM_VERSIONS)
template <typename Machine, typename = void> struct has_restores : std::false_type {};
template <typename Machine>
struct has_restores<Machine, std::void_t<decltype(Machine::restores(std::string_view()))>> : std::true_type {};
#endif

#if defined(RAFT_FSM_NATIVE) && defined(__cpp_exceptions)
template <typename Call> auto guarded(Call call) {
    static std::string message; // Outlives the jump out of fsm_panic.
    try {
        return call();
    } catch (const Panic &panic) {
        message = panic.message;
    }
    fsm_panic(message.c_str());
}
#else
template <typename Call> auto guarded(Call call) { return call(); }
#endif

// Gives the class to the C header. The object is made when it is first needed and lives until the program ends.
template <typename Machine> struct Adapter {
    static_assert(!has_query<Machine>::value || has_query<const Machine>::value, "query must be const");

    static inline Machine *instance = nullptr;

    static Machine &machine() {
        if (instance == nullptr) instance = new Machine();
        return *instance;
    }

    static fsm_status init() {
        return guarded([] {
            if constexpr (has_init<Machine>::value)
                return machine().init().raw();
            else
                return FSM_OK;
        });
    }

    static fsm_status apply(fsm_slice command) {
        return guarded([command] { return machine().apply(view(command)).raw(); });
    }

    static fsm_status query(fsm_slice question) {
        return guarded([&] {
            if constexpr (has_query<const Machine>::value)
                return std::as_const(machine()).query(view(question)).raw();
            else
                return reject("this state machine takes no queries").raw();
        });
    }

#if defined(RAFT_FSM_CLASSES)
    static const char *classify(fsm_slice command) {
        return guarded([command]() -> const char * { return std::as_const(machine()).classify(view(command)); });
    }
#endif

#if defined(RAFT_FSM_RULES)
    static fsm_status check() {
        return guarded([] { return std::as_const(machine()).check().raw(); });
    }
#endif

#if defined(RAFT_FSM_VERSIONS)
    static fsm_status restores(fsm_slice version) {
        return guarded([version] {
            if constexpr (has_restores<Machine>::value)
                return Machine::restores(view(version)).raw();
            else if (view(version) == Machine::state_version)
                return FSM_OK;
            else
                return reject("it restores ", Machine::state_version, " only, and not ", view(version)).raw();
        });
    }
#endif

#if defined(RAFT_FSM_ADOPT)
    static fsm_status adopt(fsm_old *from) {
        return guarded([from] {
            Old old(from);
            drop();
            return machine().adopt(old).raw();
        });
    }
#endif

    static void snapshot() {
        guarded([] {
            Writer out;
            std::as_const(machine()).snapshot(out);
        });
    }

    static fsm_status restore(fsm_reader *in) {
        return guarded([in] {
            Reader reader(in);
            drop();
            return machine().restore(reader).raw();
        });
    }

    static void drop() {
        delete instance;
        instance = nullptr;
    }
};

} // namespace detail

// ---- Tests: only where the target is not wasm ----
//
// A test is a program of its own, linked with the machine by the host's compiler (see raft_fsm.h for what is checked):
//
//     int main() {
//         fsm::test::Cluster cluster;
//         RAFT_FSM_EXPECT(cluster.apply("5"), fsm::test::ok("5"));
//         cluster.renew();
//         RAFT_FSM_EXPECT(cluster.query(""), fsm::test::ok("5"));
//     }
#if defined(RAFT_FSM_NATIVE)
namespace test {

struct Outcome {
    fsm_test_kind kind;
    std::string output;
};

inline bool operator==(const Outcome &left, const Outcome &right) {
    return left.kind == right.kind && left.output == right.output;
}

inline Outcome ok(std::string_view answer = {}) { return {FSM_TEST_OK, std::string(answer)}; }
inline Outcome rejected(std::string_view reason) { return {FSM_TEST_REJECTED, std::string(reason)}; }
inline Outcome trapped() { return {FSM_TEST_TRAPPED, {}}; }

// A new cluster with one replica. There is one at a time.
class Cluster {
public:
    Cluster() { fsm_test_begin(); }
    ~Cluster() { fsm_test_end(); }
    Cluster(const Cluster &) = delete;
    Cluster &operator=(const Cluster &) = delete;

    Outcome apply(std::string_view command) { return made(fsm_test_apply(detail::slice(command))); }
    Outcome query(std::string_view question) { return made(fsm_test_query(detail::slice(question))); }
    Outcome restore(std::string_view snapshot) { return made(fsm_test_restore(detail::slice(snapshot))); }
    std::string snapshot() { return std::string(detail::view(fsm_test_snapshot())); }
#if defined(RAFT_FSM_CLASSES)
    Outcome classify(std::string_view command) { return made(fsm_test_classify(detail::slice(command))); }
#endif
#if defined(RAFT_FSM_RULES)
    Outcome check() { return made(fsm_test_check()); }
#endif
#if defined(RAFT_FSM_VERSIONS)
    Outcome state_version() { return made(fsm_test_state_version()); }
    Outcome restores(std::string_view version) { return made(fsm_test_restores(detail::slice(version))); }
#endif
#if defined(RAFT_FSM_ADOPT)
    // The SHA-256 of the old module (32 bytes), its memory, and its mutable globals.
    Outcome adopt(std::string_view module, std::string_view memory, const fsm_test_global *globals, std::uint32_t count) {
        unsigned char hash[32] = {};
        module.copy(reinterpret_cast<char *>(hash), sizeof hash);
        return made(fsm_test_adopt(hash, detail::slice(memory), globals, count));
    }
#endif
    void actor(const char *name) { fsm_test_actor(name); } // Gives the commands from now on; "" for nobody.
    void renew() { fsm_test_renew(); } // An upgrade: snapshot, restore, and the same snapshot again.
    void advance(std::uint64_t ms) { fsm_test_advance(ms); }
    std::string events() const { return fsm_test_events(); } // Of the last call, a line each: TOPIC PAYLOAD
    std::string logs() const { return fsm_test_logs(); }     // Of the last call, a line each: LEVEL TEXT

private:
    static Outcome made(fsm_outcome outcome) { return {outcome.kind, std::string(detail::view(outcome.output))}; }
};

inline void expect(const char *file, int line, const Outcome &found, const Outcome &expected) {
    static const char *const kinds[] = {"ok", "rejected", "trapped"};
    if (found == expected) return;
    std::string text = std::string(kinds[found.kind]) + ": " + found.output;
    fsm_test_same(file, line, text.c_str(), (std::string(kinds[expected.kind]) + ": " + expected.output).c_str());
    std::abort(); // They differ behind a zero byte.
}

inline void expect(const char *file, int line, const std::string &found, std::string_view expected) {
    if (found != expected) {
        fsm_test_same(file, line, found.c_str(), std::string(expected).c_str());
        std::abort();
    }
}

} // namespace test

#define RAFT_FSM_EXPECT(found, expected) ::fsm::test::expect(__FILE__, __LINE__, found, expected)
#endif

} // namespace fsm

#if defined(RAFT_FSM_CLASSES)
#define RAFT_FSM_CLASSIFY(Machine) , &::fsm::detail::Adapter<Machine>::classify
#else
#define RAFT_FSM_CLASSIFY(Machine)
#endif

#if defined(RAFT_FSM_RULES)
#define RAFT_FSM_CHECKS(Machine) , &::fsm::detail::Adapter<Machine>::check
#else
#define RAFT_FSM_CHECKS(Machine)
#endif

#if defined(RAFT_FSM_VERSIONS)
#define RAFT_FSM_RESTORES(Machine) , Machine::state_version, &::fsm::detail::Adapter<Machine>::restores
#else
#define RAFT_FSM_RESTORES(Machine)
#endif

#if defined(RAFT_FSM_ADOPT)
#define RAFT_FSM_ADOPTS(Machine) , &::fsm::detail::Adapter<Machine>::adopt
#else
#define RAFT_FSM_ADOPTS(Machine)
#endif

// Makes a class the state machine of this module.
#define RAFT_FSM_MACHINE(Machine)                                                                                      \
    const fsm_machine fsm_this_machine = {                                                                             \
        &::fsm::detail::Adapter<Machine>::instance,  sizeof(Machine *),                                                \
        &::fsm::detail::Adapter<Machine>::init,      &::fsm::detail::Adapter<Machine>::apply,                          \
        &::fsm::detail::Adapter<Machine>::query,     &::fsm::detail::Adapter<Machine>::snapshot,                       \
        &::fsm::detail::Adapter<Machine>::restore,   &::fsm::detail::Adapter<Machine>::drop                           \
                                                     RAFT_FSM_CLASSIFY(Machine)                                        \
                                                     RAFT_FSM_CHECKS(Machine)                                          \
                                                     RAFT_FSM_RESTORES(Machine)                                        \
                                                     RAFT_FSM_ADOPTS(Machine)};

// ---- What the language calls when it cannot go on: a message in the log, and a trap ----
#if defined(RAFT_FSM_IMPLEMENTATION) && !defined(RAFT_FSM_NATIVE) && !defined(RAFT_FSM_HPP_IMPLEMENTED)
#define RAFT_FSM_HPP_IMPLEMENTED

void *operator new(std::size_t size) {
    void *memory = fsm_alloc(size);
    if (memory == nullptr) fsm::panic("the memory limit is reached");
    return memory;
}
void *operator new[](std::size_t size) { return operator new(size); }
void operator delete(void *memory) noexcept { fsm_free(memory); }
void operator delete[](void *memory) noexcept { fsm_free(memory); }
void operator delete(void *memory, std::size_t) noexcept { fsm_free(memory); }
void operator delete[](void *memory, std::size_t) noexcept { fsm_free(memory); }

extern "C" [[noreturn]] void __cxa_pure_virtual() { fsm::panic("a pure virtual function was called"); }

#if defined(_LIBCPP_VERSION)
// The library's own writes with printf, which would make every module import WASI's files. Whether it is declared with
// noexcept depends on the library's version (from 20 on), so the definition asks the declaration.
_LIBCPP_BEGIN_NAMESPACE_STD
[[noreturn]] void __libcpp_verbose_abort(const char *format, ...) noexcept(noexcept(__libcpp_verbose_abort(""))) {
    va_list arguments;
    va_start(arguments, format);
    char text[512]; // What does not fit is left out.
    size_t size = 0;
    for (; *format != 0 && size < sizeof text; format++) {
        bool is_text = format[0] == '%' && format[1] == 's';
        if (!is_text && *format == '%') break; // Its formats have nothing but texts up to here.
        string_view piece = is_text ? string_view(va_arg(arguments, const char *)) : string_view(format, 1);
        size += piece.copy(text + size, sizeof text - size);
        format += is_text;
    }
    va_end(arguments);
    ::fsm::panic(string_view(text, size));
}
_LIBCPP_END_NAMESPACE_STD
#endif
#endif

#endif // RAFT_FSM_HPP
