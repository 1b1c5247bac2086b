// Queues: who is next, by how much each has had.
//
// The share of a queue is its dominant share (Ghodsi et al., "Dominant Resource Fairness", NSDI
// 2011) over the kinds of slots, of what it holds and what it has used lately:
//
//   share(q) = max over kinds k of (held(q,k) + used(q,k) · ln 2 / H) / (2 · capacity(k)) /
//   weight(q) d used(q,k) / dt = held(q,k) − used(q,k) · ln 2 / H
//
// H is the half-life (Slurm's PriorityDecayHalfLife). A queue that has held h slots for long has
// used · ln 2 / H = h, so both terms are in slots. H = 0: only what is held counts.
//
// Order: jobs within their queue's quota before those that would borrow; then the queue with the
// smaller share; then, within the queue, priority (high first) and arrival.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "absl/container/btree_set.h"
#include "absl/time/time.h"
#include "coordinator/core/types.h"

namespace ll {

// The waiting jobs of one queue in order. Holds pointers to jobs it does not own; priority and
// sequence of a queued job must not change.
class JobQueue {
 public:
  struct Before {
    bool operator()(const Job* a, const Job* b) const {
      if (a->spec.priority != b->spec.priority) return a->spec.priority > b->spec.priority;
      return a->sequence < b->sequence;
    }
  };
  // What a pass must know of a job that it goes by: side by side in memory, the jobs are not.
  struct Entry {
    int priority = 0, gpus = 0;
    int64_t sequence = 0;
    Job* job = nullptr;
    bool operator<(const Entry& other) const {
      return priority != other.priority ? priority > other.priority : sequence < other.sequence;
    }
  };
  using Set = absl::btree_set<Entry>;

  // A place in the queue, good also when jobs leave it.
  class Cursor {
   public:
    explicit Cursor(const JobQueue& queue)
        : queue_(&queue), version_(queue.version_), next_(queue.jobs_.begin()) {
      Note();
    }
    // Null: at the end.
    const Entry* get() {
      if (version_ != queue_->version_ && !end_) {
        version_ = queue_->version_;
        next_ = queue_->jobs_.lower_bound(entry_);
        Note();
      }
      return end_ ? nullptr : &entry_;
    }
    // Not at the end.
    void Advance() {
      if (get() == nullptr) return;
      ++next_;
      Note();
    }
    // Where the job is the next one.
    void Pass(const Job* job) {
      if (get() != nullptr && entry_.job == job) Advance();
    }

   private:
    void Note() {
      end_ = next_ == queue_->jobs_.end();
      if (!end_) entry_ = *next_;
    }

    const JobQueue* queue_;
    uint64_t version_;
    Set::const_iterator next_;
    Entry entry_;
    bool end_ = false;
  };

  void Insert(Job* job) {
    jobs_.insert(EntryOf(job));
    ++version_;
  }
  void Erase(Job* job) {
    jobs_.erase(EntryOf(job));
    ++version_;
  }
  bool Contains(const Job* job) const { return jobs_.contains(EntryOf(const_cast<Job*>(job))); }
  size_t size() const { return jobs_.size(); }
  Set::const_iterator begin() const { return jobs_.begin(); }
  Set::const_iterator end() const { return jobs_.end(); }

 private:
  static Entry EntryOf(Job* job) {
    return {job->spec.priority, job->spec.gpus, job->sequence, job};
  }

  Set jobs_;
  uint64_t version_ = 0;  // changes with jobs_
};

struct Queue {
  QueueRecord record;
  JobQueue waiting;
  // Of the gangs that hold slots.
  std::map<std::string, int> held;  // by kind of slot
  int gpus = 0;
  int jobs = 0;
  bool changed = false;  // `used` has grown since the record was last persisted
};

const std::string& QueueNameOf(const CoreSpec& spec);

// Whether a gang of the queue may start, as far as limits go.
struct LimitAnswer {
  enum class Kind {
    kOwn,      // within its quota, or it has none
    kBorrows,  // beyond its quota, within its limits
    kWait,     // at a limit now
    kNever,    // larger than the limit itself
  };
  Kind kind = Kind::kOwn;
  std::string reason;  // kWait, kNever: the end of a sentence that begins with "it"
};
// As if the queue held `more_gpus` and `more_jobs` beyond what it does (may be negative).
LimitAnswer CheckLimits(const Queue& queue, int gpus, int more_gpus = 0, int more_jobs = 0);

// How many more GPUs the queue may hold without borrowing, as if it held `more_gpus` beyond what it
// does; may be negative, INT_MAX where nothing limits it.
int RoomWithoutBorrowing(const Queue& queue, int more_gpus);

class FairShare {
 public:
  explicit FairShare(absl::Duration half_life) : half_life_(half_life) { Declare({kDefaultQueue}); }

  // Makes the queue or changes its weight and limits; an existing one keeps what it has used.
  Queue& Declare(const QueueRecord& record);
  // As above, with the stored use.
  void Restore(const QueueRecord& record) { Declare(record).record.used = record.used; }
  Queue* Find(const std::string& name);
  const Queue* Find(const std::string& name) const;
  // The queue of a job; one that nobody declared is made.
  Queue& Of(const CoreSpec& spec);

  // A gang of `gpus` ranks takes, gives back its slots.
  void OnStart(const CoreSpec& spec, const std::string& kind, int gpus);
  void OnEnd(const CoreSpec& spec, const std::string& kind, int gpus);
  // Time passes: what is held becomes what was used, and that fades.
  void Advance(absl::Duration elapsed);
  // Slots by kind, of all registered workers.
  void SetCapacity(std::map<std::string, int> capacity) { capacity_ = std::move(capacity); }

  double Share(const Queue& queue) const;

  std::map<std::string, Queue>& queues() { return queues_; }
  const std::map<std::string, Queue>& queues() const { return queues_; }
  size_t waiting() const;  // jobs

 private:
  absl::Duration half_life_;
  std::map<std::string, Queue> queues_;
  std::map<std::string, int> capacity_;
};

}  // namespace ll
