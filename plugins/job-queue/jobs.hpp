// The state of the job queue and its rules. It knows nothing of the words of commands and answers.
#pragma once

#include "../../guest-sdk/cpp/raft_fsm.hpp"

#include <map>
#include <set>

namespace jobs {

constexpr std::size_t MOST_JOBS = 100'000, MOST_QUEUES = 1'000, MOST_PAYLOAD = 65'536, MOST_NAME = 64,
                      MOST_REASON = 200, MOST_PAYLOADS = 256 << 20;
constexpr std::uint64_t MOST_TRIES = 100, MOST_WAIT_MS = 7 * 86'400'000ull;
constexpr std::size_t SETTLED_AT_ONCE = 500; // Each may be an event, and a command has at most 1,024 of them.

enum class State : std::uint8_t { ready, delayed, leased, dead };

struct Job {
    std::string queue, payload, worker, reason; // The last worker, and why the last attempt failed.
    State state = State::ready;
    std::uint64_t attempt = 0; // Never goes back, so that (id, attempt) names one lease for ever.
    std::uint64_t limit = 1;   // attempt <= limit; a failure at the limit is death.
    std::uint64_t tries = 1;   // What `requeue` adds to the limit.
    std::uint64_t due_ms = 0;  // When the delay or the lease ends; 0 in other states.
};

// An index of the jobs: each is in exactly one of these sets, of its own queue.
struct Queue {
    std::set<std::uint64_t> ready;
    std::set<std::pair<std::uint64_t, std::uint64_t>> timers; // (due_ms, id) of delayed and leased jobs.
    std::set<std::uint64_t> dead;

    bool empty() const { return ready.empty() && timers.empty() && dead.empty(); }
};

inline bool is_name(std::string_view text) {
    constexpr std::string_view others = "._:/@-";
    if (text.empty() || text.size() > MOST_NAME) return false;
    for (char c : text) {
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && others.find(c) == std::string_view::npos) return false;
    }
    return true;
}

class Jobs {
public:
    // Why there is no room for this job, or nullptr.
    const char *no_room(std::string_view queue, std::size_t payload_size) const {
        if (jobs.size() >= MOST_JOBS) return "there are 100000 jobs";
        if (payload_size > MOST_PAYLOADS - payloads) return "the payloads of all jobs have 256 MiB";
        if (queues.size() >= MOST_QUEUES && queues.find(queue) == queues.end()) return "there are 1000 queues";
        return nullptr;
    }

    std::uint64_t push(std::string_view queue, std::uint64_t tries, std::uint64_t delay_ms, std::string_view payload) {
        std::uint64_t id = next_id++;
        Job &job = jobs[id];
        job.queue = queue;
        job.payload = payload;
        job.tries = job.limit = tries;
        payloads += payload.size();
        enter(id, job, delay_ms > 0 ? State::delayed : State::ready, delay_ms > 0 ? fsm::time_ms() + delay_ms : 0);
        return id;
    }

    // Ends what is past in this queue: delayed jobs and those with a lease get ready, or die. Oldest deadline first.
    std::size_t settle(std::string_view name, std::size_t most) {
        std::size_t settled = 0;
        auto queue = queues.find(name);
        if (queue == queues.end()) return 0;
        auto &timers = queue->second.timers;
        for (; settled < most && !timers.empty() && timers.begin()->first <= fsm::time_ms(); settled++) {
            std::uint64_t id = timers.begin()->second;
            Job &job = jobs.at(id);
            if (job.state == State::leased)
                failed(id, job, 0, "the lease ended");
            else
                move(id, job, State::ready, 0);
        }
        return settled;
    }

    std::size_t settle_all(std::size_t most) {
        std::size_t settled = 0;
        for (auto queue = queues.begin(); queue != queues.end() && settled < most; ++queue)
            settled += settle(queue->first, most - settled);
        return settled;
    }

    bool something_is_due() const {
        for (const auto &[name, queue] : queues)
            if (!queue.timers.empty() && queue.timers.begin()->first <= fsm::time_ms()) return true;
        return false;
    }

    // The ready job that was pushed first, or 0. Settle before.
    std::uint64_t take(std::string_view name, std::string_view worker, std::uint64_t lease_ms) {
        auto queue = queues.find(name);
        if (queue == queues.end() || queue->second.ready.empty()) return 0;
        std::uint64_t id = *queue->second.ready.begin();
        Job &job = jobs.at(id);
        job.worker = worker;
        job.attempt++;
        move(id, job, State::leased, fsm::time_ms() + lease_ms);
        return id;
    }

    // What `take` would give now.
    std::uint64_t peek(std::string_view name) const {
        auto found = queues.find(name);
        if (found == queues.end()) return 0;
        const Queue &queue = found->second;
        std::uint64_t first = queue.ready.empty() ? 0 : *queue.ready.begin();
        std::size_t seen = 0;
        for (auto timer = queue.timers.begin(); timer != queue.timers.end(); ++timer) {
            if (timer->first > fsm::time_ms() || seen++ == SETTLED_AT_ONCE) break;
            const Job &job = jobs.at(timer->second);
            bool dies = job.state == State::leased && job.attempt >= job.limit;
            if (!dies && (first == 0 || timer->second < first)) first = timer->second;
        }
        return first;
    }

    bool holds(std::uint64_t id, std::uint64_t attempt) const {
        const Job *job = find(id);
        return job != nullptr && job->state == State::leased && job->attempt == attempt && job->due_ms > fsm::time_ms();
    }

    // These three for a lease that `holds`.
    void done(std::uint64_t id) {
        finished++;
        fsm::emit("done", line(id, jobs.at(id)));
        remove(id);
    }

    State fail(std::uint64_t id, std::uint64_t delay_ms, std::string_view reason) {
        Job &job = jobs.at(id);
        failed(id, job, delay_ms, reason);
        return job.state;
    }

    std::uint64_t extend(std::uint64_t id, std::uint64_t lease_ms) {
        Job &job = jobs.at(id);
        move(id, job, State::leased, fsm::time_ms() + lease_ms);
        return job.due_ms;
    }

    bool is_dead(std::uint64_t id) const {
        const Job *job = find(id);
        return job != nullptr && job->state == State::dead;
    }

    // These two for a job that `is_dead`.
    void requeue(std::uint64_t id) {
        Job &job = jobs.at(id);
        job.limit = job.attempt + job.tries;
        move(id, job, State::ready, 0);
    }

    void remove(std::uint64_t id) {
        auto job = jobs.find(id);
        leave(id, job->second);
        auto queue = queues.find(job->second.queue);
        if (queue->second.empty()) queues.erase(queue);
        payloads -= job->second.payload.size();
        jobs.erase(job);
    }

    const Job *find(std::uint64_t id) const {
        auto job = jobs.find(id);
        return job == jobs.end() ? nullptr : &job->second;
    }

    const Queue *find_queue(std::string_view name) const {
        auto queue = queues.find(name);
        return queue == queues.end() ? nullptr : &queue->second;
    }

    const std::map<std::uint64_t, Job> &all() const { return jobs; }
    const std::map<std::string, Queue, std::less<>> &all_queues() const { return queues; }
    std::uint64_t pushed_count() const { return next_id - 1; }
    std::uint64_t done_count() const { return finished; }

    void write(fsm::Writer &out) const {
        out.magic("JBQ1");
        out.u64(next_id);
        out.u64(finished);
        out.u32(static_cast<std::uint32_t>(jobs.size()));
        for (const auto &[id, job] : jobs) {
            out.u64(id);
            out.u8(static_cast<std::uint8_t>(job.state));
            for (std::uint64_t number : {job.attempt, job.limit, job.tries, job.due_ms}) out.u64(number);
            for (const std::string *text : {&job.queue, &job.payload, &job.worker, &job.reason}) out.sized(*text);
        }
    }

    fsm::Status read(fsm::Reader &in) {
        in.expect("JBQ1");
        next_id = in.u64();
        finished = in.u64();
        std::uint64_t last = 0;
        for (std::uint32_t left = in.count(MOST_JOBS, 57); left > 0 && in.good(); left--) last = read_job(in, last);
        if (next_id <= last) in.fail("a job in the snapshot has an id that was not given yet");
        return in.end();
    }

private:
    static std::string line(std::uint64_t id, const Job &job) { return job.queue + ' ' + std::to_string(id); }

    void place(std::uint64_t id, const Job &job) {
        Queue &queue = queues[job.queue];
        if (job.state == State::ready) queue.ready.insert(id);
        if (job.state == State::dead) queue.dead.insert(id);
        if (job.state == State::delayed || job.state == State::leased) queue.timers.insert({job.due_ms, id});
    }

    void enter(std::uint64_t id, Job &job, State state, std::uint64_t due_ms) {
        job.state = state;
        job.due_ms = due_ms;
        place(id, job);
        if (state == State::ready) fsm::emit("ready", line(id, job));
        if (state == State::dead) fsm::emit("dead", line(id, job) + ' ' + job.reason);
    }

    void leave(std::uint64_t id, const Job &job) {
        Queue &queue = queues.find(job.queue)->second;
        queue.ready.erase(id);
        queue.dead.erase(id);
        queue.timers.erase({job.due_ms, id});
    }

    void move(std::uint64_t id, Job &job, State state, std::uint64_t due_ms) {
        leave(id, job);
        enter(id, job, state, due_ms);
    }

    void failed(std::uint64_t id, Job &job, std::uint64_t delay_ms, std::string_view reason) {
        job.reason = reason;
        if (job.attempt >= job.limit)
            move(id, job, State::dead, 0);
        else if (delay_ms > 0)
            move(id, job, State::delayed, fsm::time_ms() + delay_ms);
        else
            move(id, job, State::ready, 0);
    }

    std::uint64_t read_job(fsm::Reader &in, std::uint64_t last) {
        Job job;
        std::uint64_t id = in.u64();
        std::uint8_t state = in.u8();
        for (std::uint64_t *number : {&job.attempt, &job.limit, &job.tries, &job.due_ms}) *number = in.u64();
        job.queue = in.sized(MOST_NAME);
        job.payload = in.sized(MOST_PAYLOAD);
        job.worker = in.sized(MOST_NAME);
        job.reason = in.sized(MOST_REASON);
        bool timed = state == 1 || state == 2;
        if (id <= last) in.fail("the jobs in the snapshot are not in order");
        if (state > 3 || (!timed && job.due_ms != 0)) in.fail("a job in the snapshot has no sound state");
        if (job.tries < 1 || job.tries > MOST_TRIES || job.attempt > job.limit) in.fail("a job has no sound attempts");
        if (!is_name(job.queue)) in.fail("a queue in the snapshot has no sound name");
        if (in.good() && no_room(job.queue, job.payload.size()) != nullptr) in.fail("the snapshot has too many jobs");
        if (!in.good()) return last;
        job.state = static_cast<State>(state);
        payloads += job.payload.size();
        place(id, job); // Without events: a snapshot may have more jobs than a call may emit.
        jobs[id] = std::move(job);
        return id;
    }

    std::uint64_t next_id = 1, finished = 0;
    std::size_t payloads = 0; // The bytes of all payloads.
    std::map<std::uint64_t, Job> jobs;
    std::map<std::string, Queue, std::less<>> queues; // Those that have jobs, and no others.
};

} // namespace jobs
