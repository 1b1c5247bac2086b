// A store in memory: for the scenarios, the simulator, and to work on a backup. Its content
// survives the death of the coordinator that used it (a test keeps the object), and it can fail as
// a disk does.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "coordinator/store/store.h"

namespace ll {

class MemStore : public Store {
 public:
  absl::Status Commit(absl::Span<const Record> records) override;
  absl::StatusOr<StoredState> LoadAll() override;
  absl::StatusOr<int64_t> RaiseTerm(int64_t above = 0) override {
    return term_ = std::max(term_, above) + 1;
  }
  absl::Status Replace(absl::Span<const Record> records, absl::Time restored) override;
  std::string Description() const override { return "memory"; }

  // The next Commit writes nothing and returns `status`.
  void FailNext(absl::Status status) { fail_next_ = std::move(status); }
  // The next Commit lies: it writes nothing and returns OK. For tests that must see a simulator
  // notice.
  void DropNext() { drop_next_ = true; }

 private:
  struct Apply;
  std::map<JobId, Job> jobs_;
  std::map<JobId, std::shared_ptr<const JobPayload>> payloads_;
  std::map<JobId, std::map<int64_t, Transition>> transitions_;
  std::map<std::pair<std::string, std::string>, RequestRecord> requests_;
  std::map<WorkerId, Worker> workers_;
  std::map<std::string, ModelRecord> models_;
  std::map<std::string, DataRecord> data_;
  std::map<std::string, QueueRecord> queues_;
  std::map<std::string, ScheduleRecord> schedules_;
  std::map<std::string, std::map<int64_t, ScheduleRun>> schedule_runs_;
  int64_t term_ = 0;
  absl::Time restored_ = absl::InfinitePast();
  absl::Status fail_next_;
  bool drop_next_ = false;
};

}  // namespace ll
