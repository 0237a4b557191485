// The words of the job queue: commands and queries as README.md has them. The rules are in jobs.hpp.
#define RAFT_FSM_IMPLEMENTATION
#include "jobs.hpp"

namespace {

using jobs::Job;
using jobs::State;

constexpr std::size_t MOST_LISTED = 100;

// Takes the words of a command one after another and keeps the first thing that is wrong with them.
class Words {
public:
    explicit Words(std::string_view rest) : rest(rest) {}

    std::string_view name(const char *what) {
        std::string_view word = fsm::word(rest);
        if (!jobs::is_name(word)) wrong(what);
        return word;
    }

    std::uint64_t number(std::uint64_t least, std::uint64_t most, const char *what) {
        std::optional<std::uint64_t> number = fsm::parse_u64(fsm::word(rest), most);
        if (!number || *number < least) wrong(what);
        return number.value_or(0);
    }

    std::uint64_t id() { return number(1, UINT64_MAX, "an id is a number from 1 on"); }
    std::uint64_t attempt() { return number(1, UINT64_MAX, "an attempt is a number from 1 on"); }
    std::uint64_t delay() { return number(0, jobs::MOST_WAIT_MS, "a delay is a number from 0 to 604800000"); }
    std::uint64_t lease() { return number(1, jobs::MOST_WAIT_MS, "a lease is a number from 1 to 604800000"); }
    std::string_view queue() { return name("a queue has 1 to 64 of the characters A-Z a-z 0-9 . _ : / @ -"); }
    std::string_view worker() { return name("a worker has 1 to 64 of the characters A-Z a-z 0-9 . _ : / @ -"); }

    // All that is left, spaces included.
    std::string_view text(std::size_t most, const char *what) {
        if (rest.size() > most) wrong(what);
        return std::exchange(rest, {});
    }

    bool more() const { return !rest.empty(); }

    // Whether the words were as they should be.
    bool end() {
        if (more()) wrong("there are too many words");
        return problem == nullptr;
    }

    fsm::Status reject() const { return fsm::reject(problem); }

private:
    void wrong(const char *what) {
        if (problem == nullptr) problem = what;
    }

    std::string_view rest;
    const char *problem = nullptr;
};

const char *name_of(State state) {
    static constexpr const char *names[] = {"ready", "delayed", "leased", "dead"};
    return names[static_cast<std::size_t>(state)];
}

class JobQueue {
public:
    fsm::Status apply(std::string_view command) {
        std::string_view word = fsm::word(command);
        Words words(command);
        if (word == "push") return push(words);
        if (word == "take") return take(words);
        if (word == "done") return done(words);
        if (word == "fail") return fail(words);
        if (word == "extend") return extend(words);
        if (word == "requeue") return requeue(words);
        if (word == "requeue-all") return requeue_all(words);
        if (word == "discard") return discard(words);
        if (word == "tick") return tick(words);
        return fsm::reject("a command is push, take, done, fail, extend, requeue, requeue-all, discard or tick");
    }

    fsm::Status query(std::string_view question) const {
        std::string_view word = fsm::word(question);
        Words words(question);
        if (word == "stats") return stats(words);
        if (word == "queues") return queues(words);
        if (word == "peek") return peek(words);
        if (word == "job") return job(words);
        if (word == "payload") return payload(words);
        if (word == "dead") return dead(words);
        return fsm::reject("a query is stats, queues, peek, job, payload or dead");
    }

    void snapshot(fsm::Writer &out) const { state.write(out); }

    fsm::Status restore(fsm::Reader &in) { return state.read(in); }

private:
    fsm::Status push(Words &words) {
        std::string_view queue = words.queue();
        std::uint64_t tries = words.number(1, jobs::MOST_TRIES, "tries are a number from 1 to 100");
        std::uint64_t delay = words.delay();
        std::string_view payload = words.text(jobs::MOST_PAYLOAD, "a payload has at most 65536 bytes");
        if (!words.end()) return words.reject();
        if (const char *full = state.no_room(queue, payload.size())) return fsm::reject(full);
        return fsm::ok(state.push(queue, tries, delay, payload));
    }

    fsm::Status take(Words &words) {
        std::string_view queue = words.queue(), worker = words.worker();
        std::uint64_t lease = words.lease();
        if (!words.end()) return words.reject();
        state.settle(queue, jobs::SETTLED_AT_ONCE);
        std::uint64_t id = state.take(queue, worker, lease);
        if (id == 0) return fsm::ok("none");
        const Job &job = *state.find(id);
        return fsm::ok(id, " ", job.attempt, " ", job.due_ms, " ", job.payload);
    }

    fsm::Status not_held(std::uint64_t id, std::uint64_t attempt) const {
        return fsm::reject("job ", id, " has no lease for attempt ", attempt);
    }

    fsm::Status done(Words &words) {
        std::uint64_t id = words.id(), attempt = words.attempt();
        if (!words.end()) return words.reject();
        if (!state.holds(id, attempt)) return not_held(id, attempt);
        state.done(id);
        return fsm::ok();
    }

    fsm::Status fail(Words &words) {
        std::uint64_t id = words.id(), attempt = words.attempt(), delay = words.delay();
        std::string_view reason = words.text(jobs::MOST_REASON, "a reason has at most 200 bytes");
        if (!words.end()) return words.reject();
        if (!state.holds(id, attempt)) return not_held(id, attempt);
        return fsm::ok(name_of(state.fail(id, delay, reason)));
    }

    fsm::Status extend(Words &words) {
        std::uint64_t id = words.id(), attempt = words.attempt(), lease = words.lease();
        if (!words.end()) return words.reject();
        if (!state.holds(id, attempt)) return not_held(id, attempt);
        return fsm::ok(state.extend(id, lease));
    }

    fsm::Status requeue(Words &words) {
        std::uint64_t id = words.id();
        if (!words.end()) return words.reject();
        if (!state.is_dead(id)) return fsm::reject("job ", id, " is not dead");
        state.requeue(id);
        return fsm::ok();
    }

    fsm::Status requeue_all(Words &words) {
        std::string_view name = words.queue();
        if (!words.end()) return words.reject();
        std::size_t moved = 0;
        const jobs::Queue *queue = state.find_queue(name);
        for (; queue != nullptr && !queue->dead.empty() && moved < jobs::SETTLED_AT_ONCE; moved++)
            state.requeue(*queue->dead.begin());
        return fsm::ok(moved);
    }

    fsm::Status discard(Words &words) {
        std::uint64_t id = words.id();
        if (!words.end()) return words.reject();
        if (!state.is_dead(id)) return fsm::reject("job ", id, " is not dead");
        state.remove(id);
        return fsm::ok();
    }

    fsm::Status tick(Words &words) {
        if (!words.end()) return words.reject();
        std::size_t settled = state.settle_all(jobs::SETTLED_AT_ONCE);
        return fsm::ok("{\"settled\":", settled, ",\"more\":", state.something_is_due() ? "true" : "false", "}");
    }

    fsm::Status stats(Words &words) const {
        bool one = words.more();
        std::string_view queue = one ? words.queue() : std::string_view();
        if (!words.end()) return words.reject();
        std::uint64_t counts[4] = {};
        for (const auto &[id, job] : state.all())
            if (!one || job.queue == queue) counts[static_cast<std::size_t>(job.state)]++;
        fsm::put("{\"ready\":", counts[0], ",\"delayed\":", counts[1], ",\"leased\":", counts[2], ",\"dead\":", counts[3]);
        if (!one) fsm::put(",\"pushed\":", state.pushed_count(), ",\"done\":", state.done_count());
        return fsm::ok("}");
    }

    fsm::Status queues(Words &words) const {
        if (!words.end()) return words.reject();
        for (const auto &[name, queue] : state.all_queues()) fsm::put(name, "\n");
        return fsm::ok();
    }

    fsm::Status peek(Words &words) const {
        std::string_view queue = words.queue();
        if (!words.end()) return words.reject();
        std::uint64_t id = state.peek(queue);
        if (id == 0) return fsm::ok("none");
        return fsm::ok(id, " ", state.find(id)->payload);
    }

    fsm::Status job(Words &words) const {
        std::uint64_t id = words.id();
        if (!words.end()) return words.reject();
        const Job *job = state.find(id);
        if (job == nullptr) return fsm::reject("there is no job ", id);
        fsm::put("queue=", job->queue, " state=", name_of(job->state), " attempt=", job->attempt, " limit=", job->limit);
        fsm::put(" due_ms=", job->due_ms, " size=", job->payload.size());
        return fsm::ok(" worker=", job->worker, " reason=", job->reason);
    }

    fsm::Status payload(Words &words) const {
        std::uint64_t id = words.id();
        if (!words.end()) return words.reject();
        const Job *job = state.find(id);
        return job == nullptr ? fsm::reject("there is no job ", id) : fsm::ok(job->payload);
    }

    fsm::Status dead(Words &words) const {
        std::string_view name = words.queue();
        std::uint64_t after = words.more() ? words.id() : 0;
        if (!words.end()) return words.reject();
        const jobs::Queue *queue = state.find_queue(name);
        if (queue == nullptr) return fsm::ok();
        std::size_t listed = 0;
        for (auto id = queue->dead.upper_bound(after); id != queue->dead.end() && listed < MOST_LISTED; ++id, listed++)
            fsm::put(*id, " ", state.find(*id)->reason, "\n");
        return fsm::ok();
    }

    jobs::Jobs state;
};

} // namespace

RAFT_FSM_MACHINE(JobQueue)
