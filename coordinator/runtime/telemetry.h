// What ranks tell while they work: events (JSON lines) and logs. Never part of a decision and never
// in the store's transactions; a bounded copy so that logs and history outlive a worker.
//
//   DIR/JOB_ID/e0001/rank-00.events.jsonl      bytes exactly as in the agent's spool, same offsets
//   DIR/JOB_ID/e0001/rank-00.log
//
// A file's size is the offset up to which the copy reaches, also after a restart: bytes are written
// before they are acknowledged, but not synced (after a power cut the size says from where the
// agent sends again). When a job's copy is larger than the cap the oldest half of its largest file
// is punched out; offsets stay.
//
// Readers pull at their own pace from the files, so a slow one costs no memory.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/ids.h"
#include "coordinator/runtime/checkpoint_history.h"
#include "coordinator/runtime/recent_keys.h"
#include "coordinator/runtime/step_event.h"
#include "model/plan/pace.h"

namespace ll {

// What an Append brought from rank 0.
struct TelemetryNews {
  std::vector<StepFacts> steps;
  std::vector<GuardFacts> guards;
  // Of the newest `eval` event, or of an eval job's `done`, that tells it.
  std::optional<double> eval_perplexity;
  std::optional<double> eval_effective_context_length;
};

enum class TelemetryStream { kEvents, kLog };

struct TelemetryKey {
  JobId job;
  int64_t epoch = 0;
  int rank = 0;
  TelemetryStream stream = TelemetryStream::kEvents;
};

struct TelemetryOptions {
  std::string dir;
  int64_t cap_bytes_per_job = 64 << 20;
  // Telemetry is refused where the disk has less left: decisions need it more.
  int64_t min_free_bytes = 64 << 20;
};

// Thread-safe.
class Telemetry {
 public:
  // Called after new bytes are in the files, on the appending thread and without a lock.
  using Listener = std::function<void(const JobId& job, const TelemetryNews& news)>;

  explicit Telemetry(TelemetryOptions options) : options_(std::move(options)) {}

  // Before the first Append.
  void AddListener(Listener listener) { listeners_.push_back(std::move(listener)); }

  // Takes bytes that start at `offset` of the agent's spool and returns from where the agent is to
  // go on: bytes already here are skipped; bytes beyond the end are not taken (the returned offset
  // is smaller than `offset`); of a job that was removed all count as here. Errors: InvalidArgument
  // (not a job id, epoch or rank out of range), ResourceExhausted, other I/O.
  absl::StatusOr<int64_t> Append(const TelemetryKey& key, int64_t offset, absl::string_view data);

  // The offset up to which the copy reaches; 0 where there is none.
  int64_t Size(const TelemetryKey& key) const;

  struct Piece {
    int64_t offset =
        0;  // of the first byte; later than asked for where the beginning was punched out
    std::string data;
  };
  // At most `max_bytes` from `offset`; empty at the end.
  absl::StatusOr<Piece> Read(const TelemetryKey& key, int64_t offset, int64_t max_bytes) const;

  // Epochs of which something was received, rising.
  std::vector<int64_t> Epochs(const JobId& job) const;

  // Every step of rank 0 in order, each in its newest epoch's version.
  std::vector<StepFacts> Steps(const JobId& job) const { return HistoryOf(job).steps; }

  // What rank 0 told of the whole job. Reads its files.
  struct History {
    std::vector<StepFacts> steps;      // as Steps()
    std::optional<double> perplexity;  // of the newest evaluation that told one
    bool done = false;                 // the newest epoch's `done` event is there
    JobNotes notes;
  };
  History HistoryOf(const JobId& job) const;

  // Of rank 0's events: the checkpoints that are there, newest first. Reads its files.
  std::vector<CheckpointFacts> Checkpoints(const JobId& job) const;

  // The newest step; `tokens` counts from the job's first step. nullopt before the first.
  std::optional<StepFacts> Newest(const JobId& job) const;

  // The newest attempt's pace.
  StepPace Pace(const JobId& job) const;

  // What is out of the ordinary in the job (JobNotes::Text).
  std::string Notes(const JobId& job) const;

  // Of these jobs those whose files must be read before Newest, Pace or Notes can answer: once a
  // process each, up to a second long.
  std::vector<JobId> Unread(std::vector<JobId> jobs) const;

  // Another process may have written to the files: what is known of them is read anew.
  void ForgetFacts();
  // Deletes everything of the job. What an agent tells of it later is not taken up again.
  void Remove(const JobId& job);
  // The jobs of which there is something and that `known` does not know.
  std::vector<JobId> Others(const std::function<bool(const JobId&)>& known) const;

 private:
  // Each job has a lock of its own: reading one's history, or writing it, holds up no other.
  struct JobFacts {
    absl::Mutex mu;
    bool read ABSL_GUARDED_BY(mu) = false;                // the rest is what the files tell
    bool removed ABSL_GUARDED_BY(mu) = false;             // there must be no files any more
    std::optional<StepFacts> newest ABSL_GUARDED_BY(mu);  // with cumulative tokens
    StepPace pace ABSL_GUARDED_BY(mu);
    JobNotes notes ABSL_GUARDED_BY(mu);
    int64_t bytes ABSL_GUARDED_BY(mu) = 0;  // allocated on disk, about
  };

  std::string PathOf(const TelemetryKey& key) const;
  // Every whole event of rank 0, epoch by epoch.
  void ForEachEvent(const JobId& job,
                    const std::function<void(const nlohmann::json& event, int64_t epoch)>& f) const;
  std::shared_ptr<JobFacts> FactsOf(const JobId& job) const ABSL_LOCKS_EXCLUDED(mu_);
  void ReadOnce(const JobId& job, JobFacts& facts) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(facts.mu);
  void NoteSteps(const JobId& job, const std::vector<StepFacts>& steps, JobFacts& facts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(facts.mu);
  // Appends to the file, takes the news, and returns where the agent is to go on.
  absl::StatusOr<int64_t> Write(const TelemetryKey& key, int64_t offset, absl::string_view data,
                                JobFacts& facts, TelemetryNews& news)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(facts.mu);
  void EnforceCap(const JobId& job, JobFacts& facts) ABSL_EXCLUSIVE_LOCKS_REQUIRED(facts.mu);

  const TelemetryOptions options_;
  std::vector<Listener> listeners_;
  mutable absl::Mutex mu_;
  // Filled from the files when a job is first asked for.
  mutable absl::flat_hash_map<JobId, std::shared_ptr<JobFacts>> facts_ ABSL_GUARDED_BY(mu_);
  // An agent's session may outlive a job's record.
  RecentKeys removed_ ABSL_GUARDED_BY(mu_){65'536};
};

// Whether the text has the form of a job id; anything else must not become part of a path.
bool LooksLikeJobId(absl::string_view text);

// InvalidArgument: no attempt has that number, or no gang such a rank.
absl::Status CheckTelemetryRange(int64_t epoch, int rank);

// Free bytes for this process on the file system of `path`; a large number where that cannot be
// told.
int64_t FreeBytes(const std::string& path);

}  // namespace ll
