// What one line of a trainer's event stream says, as far as the agent cares. Thread-safe functions.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/workers.pb.h"

namespace ll {

struct TrainerEvent {
  std::string event;  // "phase", "rendezvous", "step", "checkpoint", "error", "done", … ; others
                      // are passed on unread
  std::string phase;  // of "phase"
  std::string address;  // of "rendezvous"
  int64_t step = 0;     // where the event has one
  std::string about;    // of "warning": what went wrong, where one can count it ("checkpoint")
  v1::CheckpointReport checkpoint;                                 // of "checkpoint"
  v1::FailureClass failure_class = v1::FAILURE_CLASS_UNSPECIFIED;  // of "error"
  std::string message;                             // of "error": one sentence with field and hint
  std::optional<int> caused_by_rank;               // of "error", where it names one
  std::optional<google::protobuf::Struct> result;  // of "done"
  // Of "step", for the agent's own metrics; NaN where absent.
  double tokens_per_second = kAbsent, step_seconds = kAbsent, peak_bytes = kAbsent;
  // Of "step" and "times": seconds by phase ("forward", …); of "times": the rank's own score.
  std::vector<std::pair<std::string, double>> phases;
  double straggler_score = kAbsent;
  static constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();
};

// Errors (InvalidArgument): not one JSON object with a string "event".
absl::StatusOr<TrainerEvent> ParseTrainerEvent(absl::string_view line);

// A "warning" event line (with its newline) that the agent itself writes into a rank's stream.
std::string WarningEventLine(absl::string_view time_rfc3339, int rank, absl::string_view message);

// The failure class of a trainer's exit code; unspecified for 0 (done) and 10 (stopped after a
// checkpoint).
v1::FailureClass FailureClassOfExitCode(int exit_code);

}  // namespace ll
