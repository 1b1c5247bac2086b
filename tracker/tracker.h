// What other tools are told of trainings: one stream of events for all of them, and the interface
// of those that take it. Off unless configured; never part of a decision.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ll {

// What does not change in a job's life.
struct TrackedJob {
  std::string id;    // "job-…"
  std::string name;  // free text of a user; may be empty
  std::string user, queue, kind;
  absl::Time submitted;
  std::vector<std::pair<std::string, std::string>> params;  // the resolved spec, by key
  std::vector<std::pair<std::string, std::string>> labels;
};

struct TrackerEvent {
  enum class Kind {
    kState,       // the job is in another state; the first event of a job
    kStep,        // an optimizer step has ended
    kEvaluation,  // an evaluation has ended
  };
  Kind kind = Kind::kState;
  std::shared_ptr<const TrackedJob> job;
  absl::Time time;
  int64_t epoch = 0;  // attempt
  // Told before, by another process: for those that keep what is open; nothing is sent of it.
  bool replayed = false;

  // kState
  std::string state;   // "RUNNING"
  std::string reason;  // a sentence

  // kStep, kEvaluation
  int64_t step = 0;
  double step_seconds = 0;
  std::vector<std::pair<std::string, double>> values;  // "loss", "tokens_per_second", …
  std::vector<std::pair<std::string, double>> phases;  // seconds by phase
};

inline bool IsEndState(const std::string& state) {
  return state == "SUCCEEDED" || state == "FAILED" || state == "CANCELLED";
}

// Used from one thread.
class Tracker {
 public:
  virtual ~Tracker() = default;
  virtual std::string name() const = 0;  // "otlp": a metric's label
  // May wait for the network or a disk. Unavailable: the same batch may be given once more later;
  // any other error: the batch is lost.
  virtual absl::Status Take(const std::vector<TrackerEvent>& batch) = 0;
  // On any thread: a Take that is under way, and every later one, ends soon. Of those that wait for
  // nothing but this host's disk: nothing.
  virtual void Cancel() {}
};

}  // namespace ll
