// The audit log: who asked for which change, and who was refused. One JSON object a line in
// DATA_DIR/audit.jsonl, which only grows; each line holds the SHA-256 of the line before it, so
// that a line that was changed, removed or put in between shows (`ll-coordinator audit verify`). A
// file that is full becomes audit-N.jsonl, N being its first line's number, and the chain goes on
// in the next one.
//
// A line is written before the change's answer leaves, so that the end of the process loses none;
// once a second the file is synced, so that the loss of power loses at most a second's. While it
// cannot be written, changes are refused. It holds names and ids, never specs, tokens or messages.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/steady_cond_var.h"

namespace ll {

struct AuditEntry {
  std::string user, tenant;  // empty: not known
  std::string method;        // "/ll.v1.Jobs/Cancel"
  std::string object;        // a job, worker, queue, schedule, model, or token file; may be empty
  std::string result;        // "OK" or the status' name
  std::string peer;          // "ipv4:192.0.2.7:51234"
  std::string request_id;    // may be empty
};

// Thread-safe.
class AuditLog {
 public:
  struct Options {
    std::string dir;
    int64_t max_file_bytes = 64 << 20;
    double refusals_per_second = 20;  // the rest is counted in the next line
  };
  // Goes on where the newest line left off; a line that a loss of power cut in two is removed, and
  // the next one says so. Errors: the file cannot be opened; its last line is none of this log's
  // (DataLoss).
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(Options options, Clock& clock);
  ~AuditLog();

  // Whether changes may be made: Unavailable, or ResourceExhausted where the disk is full, while
  // what has happened cannot be written down.
  absl::Status Writable();
  void Change(const AuditEntry& entry);
  void Refusal(const AuditEntry& entry);

 private:
  AuditLog(Options options, Clock& clock) : options_(std::move(options)), clock_(clock) {}
  absl::Status OpenFile() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status RotateWhenFull() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Put(const AuditEntry& entry, int64_t suppressed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Flush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SyncOften();

  const Options options_;
  Clock& clock_;
  absl::Mutex mu_;
  int fd_ ABSL_GUARDED_BY(mu_) = -1;
  int64_t size_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t number_ ABSL_GUARDED_BY(mu_) = 0;        // of the newest line
  int64_t first_number_ ABSL_GUARDED_BY(mu_) = 1;  // of the file's first line
  std::string last_hash_ ABSL_GUARDED_BY(mu_);
  int64_t cut_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // of a line that a crash left half written
  std::deque<std::string> pending_ ABSL_GUARDED_BY(mu_);  // made while the file cannot be written
  int64_t lost_ ABSL_GUARDED_BY(mu_) = 0;                 // and those for which there was no room
  absl::Status failed_ ABSL_GUARDED_BY(mu_);
  double refusals_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Duration refused_at_ ABSL_GUARDED_BY(mu_) = absl::ZeroDuration();
  int64_t suppressed_ ABSL_GUARDED_BY(mu_) = 0;
  bool dirty_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  SteadyCondVar stopped_;
  std::thread syncer_;
};

struct AuditSummary {
  int64_t lines = 0, first = 0, last = 0;
  std::string last_sha256;  // to be kept elsewhere: it shows that the end was cut off
};
// The files of DIR's log in order, the newest last.
absl::StatusOr<std::vector<std::string>> AuditFiles(const std::string& dir);
// DataLoss names the first line, as FILE:LINE, that does not follow from the one before.
absl::StatusOr<AuditSummary> VerifyAudit(const std::vector<std::string>& files);

}  // namespace ll
