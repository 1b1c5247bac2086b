// The trainer's voice: one JSON object a line, for the agent (an inherited descriptor) or,
// stand-alone, for a person (standard output) and for the record (OUT/events.jsonl).
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/file.h"
#include "nlohmann/json.hpp"

namespace ll {

// Thread-safe: the checkpoint thread reports too. A line is written with one write(2) where the
// pipe takes it whole. An event that cannot be written (the reader is gone, the disk is full) is
// lost; training does not depend on it.
class EventSink {
 public:
  // Writes to `fd`, which stays the caller's.
  EventSink(Clock& clock, int rank, int fd);
  // Writes to `fd` and appends to `path`. Errors: the file cannot be opened.
  static absl::StatusOr<std::unique_ptr<EventSink>> WithFile(Clock& clock, int rank, int fd,
                                                             const std::string& path);

  // Emits {"event": name, "time": RFC 3339, "rank": r, ...fields}. NaN and infinity become null.
  void Emit(absl::string_view name, const nlohmann::ordered_json& fields) ABSL_LOCKS_EXCLUDED(mu_);

  // load, rendezvous, train, eval, checkpoint.
  void Phase(absl::string_view phase,
             nlohmann::ordered_json fields = nlohmann::ordered_json::object());
  void Warning(absl::string_view message);
  // `error` with the class, field, message and hint that `status` carries.
  void Error(const absl::Status& status);

 private:
  absl::Status OpenFile() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Clock& clock_;
  const int rank_;
  const int fd_;
  absl::Mutex mu_;
  std::string path_ ABSL_GUARDED_BY(mu_);                      // empty: no file
  std::unique_ptr<AppendOnlyFile> file_ ABSL_GUARDED_BY(mu_);  // null after a write that failed
};

// The object every error is reported as: {"class", "field", "message", "hint"}.
nlohmann::ordered_json ErrorToJson(const absl::Status& status);

}  // namespace ll
