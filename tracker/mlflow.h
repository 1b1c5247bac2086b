// Jobs as runs of an MLflow tracking server, by its REST API 2.0: one run a job, found again by its
// tag ll.job_id when another process goes on.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tracker/http_target.h"
#include "tracker/tracker.h"

namespace ll {

// Bodies of requests. Pure functions; texts are cut to what the server takes.
nlohmann::ordered_json MlflowRun(const TrackedJob& job, const std::string& experiment_id);
// Requests of runs/log-batch with the values of these events of one run: at most 1000 metrics each.
std::vector<nlohmann::ordered_json> MlflowBatches(const std::string& run_id,
                                                  const std::vector<TrackerEvent>& events);
// MLflow's name of a job's state: RUNNING, SCHEDULED, FINISHED, FAILED, KILLED.
std::string MlflowStatus(const std::string& state);

class MlflowTracker : public Tracker {
 public:
  MlflowTracker(HttpTarget target, std::string experiment)
      : target_(std::move(target)), experiment_(std::move(experiment)) {}
  std::string name() const override { return "mlflow"; }
  absl::Status Take(const std::vector<TrackerEvent>& batch) override;
  void Cancel() override { *target_.cancelled = true; }

 private:
  absl::StatusOr<nlohmann::json> Call(
      const std::string& method, const std::string& what, const nlohmann::ordered_json& body,
      const std::vector<std::pair<std::string, std::string>>& query);
  absl::StatusOr<std::string> ExperimentId();
  // Of the job; made where there is none.
  absl::StatusOr<std::string> RunId(const TrackedJob& job);
  absl::Status UpdateRun(const std::string& run_id, const TrackerEvent& newest);

  const HttpTarget target_;
  const std::string experiment_;  // its name
  std::string experiment_id_;
  std::map<std::string, std::string> runs_;  // by job
};

}  // namespace ll
