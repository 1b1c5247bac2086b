// Questions to agents that are under way (api/path_check.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/api/path_check.h"

namespace ll {

// Thread-safe. `done` functions are called without a lock.
class PathChecks {
 public:
  // Sessions that do not answer by `deadline` (steady) are counted as not asked.
  int64_t Begin(absl::Duration deadline, std::function<void(PathFindings)> done);
  // Between Begin and Asked answers are taken but the question is not yet over.
  void Ask(int64_t id, uint64_t session);
  void Asked(int64_t id);

  void OnAnswer(uint64_t session, const std::string& worker, const v1::PathChecked& answer);
  void OnSessionEnd(uint64_t session);
  void OnTime(absl::Duration now);

 private:
  struct Question {
    absl::Duration deadline;
    std::function<void(PathFindings)> done;
    PathFindings findings;
    std::set<uint64_t> waiting;
    bool asked = false;
  };
  // Takes questions that are over out of the map and answers them.
  void Finish(const std::function<bool(const Question&)>& over);

  absl::Mutex mu_;
  int64_t last_id_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<int64_t, Question> questions_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
