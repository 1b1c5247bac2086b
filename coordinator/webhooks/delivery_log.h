// What of the webhooks must be remembered: up to which of a job's transitions an endpoint has
// heard, and what was given up. Beside the scheduler's records and not among them: deliveries
// decide nothing, and an endpoint's pace must not be the transactions'.
//
// With SQLite DATA_DIR/webhooks.db; with PostgreSQL tables of the same database, so that the next
// leader goes on where the last one was.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ll {

struct DeadWebhook {
  std::string endpoint, job;
  int64_t number = 0;  // the job's transition
  absl::Time time;     // when it was given up
  std::string why;     // of the last attempt
};

// What waits of a job whose record goes: nothing else can tell it after a restart.
struct KeptWebhook {
  std::string endpoint, job;
  int64_t number = 0;  // the job's transition
  absl::Time time;     // of the transition
  std::string body;
};

struct DeliveryState {
  // Since when an endpoint hears: what happened before is not told.
  std::map<std::string, absl::Time> since;
  // By endpoint and job: how many of its transitions are done with.
  std::map<std::pair<std::string, std::string>, int64_t> done;
  std::vector<KeptWebhook> kept;  // by endpoint, job and number
};

// Thread-safe.
class DeliveryLog {
 public:
  static constexpr int kMostDead = 100;  // of all endpoints; the oldest go first

  virtual ~DeliveryLog() = default;
  virtual absl::StatusOr<DeliveryState> Load() = 0;
  virtual absl::Status Begin(const std::string& endpoint, absl::Time since) = 0;
  // Durable when it returns. Never goes back. What was kept of these transitions goes.
  virtual absl::Status Done(const std::string& endpoint, const std::string& job, int64_t done) = 0;
  virtual absl::Status Bury(const DeadWebhook& dead) = 0;
  // All or nothing, durable when it returns.
  virtual absl::Status Keep(const std::vector<KeptWebhook>& kept) = 0;
  // The jobs' records are gone, and nothing of them waits.
  virtual absl::Status Forget(const std::string& endpoint,
                              const std::vector<std::string>& jobs) = 0;
  // Newest first.
  virtual absl::StatusOr<std::vector<DeadWebhook>> Dead() = 0;
};

// Both open when they are first used.
std::unique_ptr<DeliveryLog> MakeSqliteDeliveryLog(const std::string& path);
std::unique_ptr<DeliveryLog> MakePostgresDeliveryLog(const std::string& uri);

}  // namespace ll
