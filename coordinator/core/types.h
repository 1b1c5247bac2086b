// What the scheduler knows: jobs, attempts, workers, registries. Plain values without behaviour;
// the persisted part of each is what the store writes (records.h).
//
// Words: an *attempt* runs one *gang* of *ranks*, each on a *slot* of a *worker* (agent). Its
// number is the *epoch*.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/ids.h"
#include "coordinator/core/job_state.h"

namespace ll {

// The part of a job's spec that decisions depend on; the rest travels as opaque bytes (JobPayload).
struct CoreSpec {
  std::string name;            // for people
  std::string kind = "train";  // for people
  std::string queue;           // whose share it runs on; empty: kDefaultQueue
  int gpus = 1;                // ranks of the gang, > 0; of an elastic one the fewest
  int priority = 0;            // higher first
  int max_retries = 3;         // attempts after the first that failures may cost
  std::vector<JobId> after;    // must succeed first
  absl::Duration max_runtime = absl::InfiniteDuration();  // over all attempts, while RUNNING
  absl::Duration max_headless = absl::Hours(24);  // as the agents apply it to this job's ranks
  absl::Duration ttl_after_finished = absl::InfiniteDuration();  // then the job's record is deleted
  int64_t required_slot_bytes = 0;                               // a rank's forecast peak
  std::vector<std::string> slot_kinds;  // allowed Slot::kind; empty: any (a gang never mixes kinds)
  // The user named types of GPUs (spec key gpu_types), so that `slot_kinds` are of those only; and
  // the kinds that would hold the job but for that, which llctl why tells.
  bool kinds_named = false;
  std::vector<std::string> other_kinds;
  std::vector<std::string> hosts;  // allowed Worker::host; empty: any
  std::vector<JobId> after_any;    // must have ended first, well or not
  // Forecast of the time it trains, over all attempts, with `gpus` ranks; infinite: unknown.
  absl::Duration forecast_duration = absl::InfiniteDuration();
  // An attempt that trains is not preempted sooner; none: SchedulerOptions::min_runtime.
  std::optional<absl::Duration> min_runtime;
  // The job, one of `after`, whose newest checkpoint this one starts from once it has succeeded;
  // empty: none.
  JobId source;
  std::map<std::string, std::string> labels;  // for people
  // Ended as FAILED when it has not ended by then (wall time).
  absl::Time deadline = absl::InfiniteFuture();
  int max_gpus = 0;    // elastic: the most ranks, > gpus; else 0
  int batch_rows = 0;  // elastic: rows of an optimizer step (elastic.h); 0: not known
  int row_ranks = 1;   // elastic: ranks that share a row; any size is a multiple of it
  // Its checkpoints are copied to where any host can fetch them (spec key checkpoint_uri).
  bool copies_checkpoints = false;
};

// The queue of jobs that name none; always there.
inline constexpr char kDefaultQueue[] = "default";

// Bytes that the core stores and hands out but never reads. Immutable once submitted.
struct JobPayload {
  std::string spec;           // as submitted
  std::string resolved_spec;  // with every default filled in
  std::string forecast;
};

// A job to be. Several that come together have sequence numbers in their order, one after the
// other.
struct Submission {
  JobId job;      // new and random
  CoreSpec spec;  // after, after_any and source may name jobs in front of it in the list
  std::shared_ptr<const JobPayload> payload;
};

struct Checkpoint {
  int64_t step = 0;
  int64_t epoch = 0;
  std::string path;  // on `host`, or in the shared job store
  std::string manifest_sha256;
  std::string worker;  // agent that reported it
  std::string host;
};

// How a rank's process ended, or that its end was concluded.
struct RankExit {
  int code = 0;
  int signal = 0;
  bool ordered = false;  // the agent had been told to stop it
  bool lost = false;  // with its agent: concluded (its host was declared dead, …), or told by an
                      // agent that ended it of its own accord, or whose death did
  bool reported =
      false;  // by a numbered report, which is the rank's last; false while only a Hello has told
  FailureClass failure_class = FailureClass::kNone;
  std::string message;
  int caused_by = -1;  // another rank, whose loss it has given as the cause; -1: none
};

enum class RankPhase { kOrdered, kStarted, kTraining, kExited };

struct Rank {
  WorkerId worker;
  int slot = 0;
  std::string incarnation;  // of the agent process that was given the order
  RankPhase phase = RankPhase::kOrdered;
  RankExit exit;  // when kExited
};

// A failure that the coordinator itself established (a deadline), or the judged cause of an
// attempt's end.
struct Failure {
  FailureClass failure_class = FailureClass::kNone;
  std::string message;
};

enum class StopKind { kNone, kCheckpoint, kKill };

// The newest attempt of a job; kept after its end until the next one starts.
struct Attempt {
  int64_t epoch = 0;
  std::string nonce;        // prefix in the rendezvous store
  std::vector<Rank> ranks;  // index = rank
  std::string rendezvous;   // address rank 0 reported
  std::optional<Checkpoint> resume_from;
  std::map<WorkerId, int64_t> report_sequence;  // highest durable report of each agent
  StopKind stop = StopKind::kNone;              // what the agents were told
  std::string stop_reason;
  std::optional<Failure> forced;  // set when a deadline ended the attempt
  std::string slot_kind;          // of all its slots

  bool over() const {
    for (const Rank& rank : ranks) {
      if (rank.phase != RankPhase::kExited) return false;
    }
    return true;
  }
};

struct Transition {
  absl::Time time;
  JobState state = JobState::kQueued;
  std::string reason;
  int64_t epoch = 0;
};

struct Job {
  // Constant after submission.
  JobId id;
  int64_t sequence = 0;  // submit order, unique, rising
  std::string request_id;
  std::string user;
  std::string tenant;  // may be empty
  CoreSpec spec;
  std::shared_ptr<const JobPayload> payload;
  absl::Time submitted;

  // Persisted with every change.
  JobState state = JobState::kQueued;
  std::string reason;  // of the newest transition
  int64_t epoch = 0;   // attempts so far
  // The next attempt's epoch is above this too: a restored store knows less than agents may have
  // been given.
  int64_t epoch_floor = 0;
  int retries = 0;                 // of the budget max_retries
  int stuck_attempts = 0;          // in a row that made no new checkpoint; exponent of the back-off
  std::vector<JobId> waiting_for;  // of spec.after, not yet succeeded
  int64_t transitions = 0;         // so far
  absl::Time started = absl::InfinitePast();   // first STARTING
  absl::Time finished = absl::InfinitePast();  // the end
  absl::Duration run_time = absl::ZeroDuration();
  // How much of spec.forecast_duration is done: run_time, where every attempt had spec.gpus ranks.
  absl::Duration forecast_done = absl::ZeroDuration();
  std::optional<Checkpoint> newest_checkpoint;
  std::optional<Checkpoint> source_checkpoint;  // of spec.source, from its end on
  std::optional<Attempt> attempt;
  FailureClass failure_class = FailureClass::kNone;
  int preemptions = 0;  // attempts it gave up for another job or a drain
  int resizes = 0;      // attempts it gave up to go on with more or fewer ranks
  // > 0: its attempt ends, or has just ended, so that it goes on with about so many ranks: more
  // than the attempt's if it grows, else the minimum.
  int resize_to = 0;
  JobId preempted_by;  // the newest preemptor, which it may not preempt; may be empty
  // QUEUED: it starts before the others, since they were preempted for it or it was for a resize.
  bool claims = false;
  std::string result;               // opaque bytes of rank 0's `done` event
  std::vector<Transition> history;  // own records; the newest kMaxHistory

  // Derived; not persisted. Deadlines are in the scheduler's own time (lease.h).
  bool headless = false;
  std::string wait_reason;     // newest placement answer while QUEUED; may be empty
  bool needs_workers = false;  // wait_reason says that only the return of workers helps
  absl::Duration deadline =
      absl::InfiniteDuration();  // of the state: start, finish, stop, back-off
  absl::Duration saved_run_time = absl::ZeroDuration();    // run_time as last persisted
  absl::Duration trains_since = absl::InfiniteDuration();  // of the attempt; infinite: it does not
  absl::Duration expected_end = absl::InfiniteDuration();  // of the attempt; infinite: unknown
  absl::Duration preemption_tried = -absl::InfiniteDuration();  // when it last looked for victims
  absl::Duration promised_start = absl::InfiniteDuration();     // its first reservation's
  int64_t promised_after = 0;  // how many had started in order where it may run (StartedInOrder)
  absl::Duration could_grow_since = absl::InfiniteDuration();  // without a break; infinite: not now
  absl::Duration resized = -absl::InfiniteDuration();          // when its size last changed
};
inline constexpr size_t kMaxHistory = 200;

struct Slot {
  int index = 0;
  std::string kind;  // "cpu", "A100-80", "H100", …
  int64_t memory_bytes = 0;
  bool operator==(const Slot&) const = default;
};

// What holds a slot: a rank of a job's current attempt, or a *stray* of an attempt that was given
// up.
struct SlotUse {
  JobId job;
  int64_t epoch = 0;
  int rank = 0;
  bool stray = false;
};

struct Worker {
  // Persisted.
  WorkerId name;
  std::string incarnation;
  std::string host;
  std::string fabric_host;
  std::string version;
  std::string http_address;
  std::vector<Slot> slots;
  absl::Time last_seen;
  bool declared_dead = false;
  std::string nvlink_domain;  // hosts of one domain share a fast fabric; may be empty
  std::string rack;           // may be empty
  bool cordoned = false;      // takes no new gang
  bool draining = false;      // cordoned, and what runs there was told to move
  std::string cordon_reason;

  // Derived.
  bool connected = false;
  uint64_t session = 0;                           // the driver's number of the stream; 0: none
  absl::Duration silence = absl::ZeroDuration();  // since last heard, in the scheduler's own time
  std::map<int, SlotUse> uses;                    // slot index → what holds it
  std::map<JobId, absl::Duration> faults;  // infrastructure failures: job → newest, own time

  // Out of service with nothing left on it: silence is what was to be expected of it, as of a
  // worker that a scaler or an operator takes away.
  bool retired() const { return cordoned && uses.empty(); }
};

// A share of the cluster. Limits count the gangs that hold slots.
struct QueueRecord {
  std::string name;
  double weight = 1;              // > 0; of two busy queues the one of weight 2 gets twice as much
  std::optional<int> quota_gpus;  // its own; beyond it jobs borrow and may be preempted by owners
  std::optional<int> max_gpus;    // never more, borrowed or not; at least quota_gpus
  std::optional<int> max_jobs;    // running at once
  // Slot-seconds used by slot kind, decayed to the moment of the record (fair_share.h).
  std::map<std::string, double> used;
};

struct ModelRecord {
  std::string name;
  std::string path;  // empty: a known shape without registered weights
  bool verified = false;
  std::string config_json;
};

struct DataRecord {
  std::string name;
  std::string path;
  bool is_default = false;
};

// Remembers a submit for idempotence; outlives its job's record for a while.
struct RequestRecord {
  std::string user;  // RequestOwner (access.h)
  std::string request_id;
  std::string body_sha256;
  JobId job;
  absl::Time time;
};

}  // namespace ll
