#include "tracker/mlflow.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/field_error.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "base/utf8.h"

namespace ll {
namespace {

// The server's limits of one request.
constexpr size_t kMostMetrics = 1000, kMostParams = 100;
constexpr size_t kLongestValue = 500;

std::string Cut(const std::string& text) { return std::string(CutText(text, kLongestValue)); }

// The server takes letters, digits and "_-. :/" in names.
std::string MetricName(const std::string& name) {
  std::string out;
  for (const char c : name) {
    const bool known = std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                       std::string("_-. :/").find(c) != std::string::npos;
    out.push_back(known ? c : '_');
  }
  return out;
}

nlohmann::ordered_json Pair(const std::string& key, const std::string& value) {
  return {{"key", MetricName(key)}, {"value", Cut(value)}};
}

std::string Text(const nlohmann::json& object, const char* outer, const char* inner) {
  if (!object.contains(outer) || !object[outer].is_object()) return "";
  const nlohmann::json& in = object[outer];
  return in.contains(inner) && in[inner].is_string() ? in[inner].get<std::string>() : "";
}

absl::Status BadAnswer(const std::string& what) {
  return absl::FailedPreconditionError(
      absl::StrCat("the tracking server's answer to ", what, " lacks what was asked for"));
}

}  // namespace

nlohmann::ordered_json MlflowRun(const TrackedJob& job, const std::string& experiment_id) {
  nlohmann::ordered_json tags = nlohmann::ordered_json::array();
  tags.push_back(Pair("ll.job_id", job.id));
  if (!job.user.empty()) tags.push_back(Pair("mlflow.user", job.user));
  if (!job.queue.empty()) tags.push_back(Pair("ll.queue", job.queue));
  if (!job.kind.empty()) tags.push_back(Pair("ll.kind", job.kind));
  for (const auto& [key, value] : job.labels)
    tags.push_back(Pair(absl::StrCat("ll.label.", key), value));
  return {{"experiment_id", experiment_id},
          {"run_name", Cut(job.name.empty() ? job.id : job.name)},
          {"start_time", absl::ToUnixMillis(job.submitted)},
          {"tags", tags}};
}

std::vector<nlohmann::ordered_json> MlflowBatches(const std::string& run_id,
                                                  const std::vector<TrackerEvent>& events) {
  std::vector<nlohmann::ordered_json> batches;
  const auto add = [&](nlohmann::ordered_json metric) {
    if (batches.empty() || batches.back()["metrics"].size() >= kMostMetrics) {
      batches.push_back({{"run_id", run_id}, {"metrics", nlohmann::ordered_json::array()}});
    }
    batches.back()["metrics"].push_back(std::move(metric));
  };
  for (const TrackerEvent& event : events) {
    if (event.replayed || event.kind == TrackerEvent::Kind::kState) continue;
    const std::string group = event.kind == TrackerEvent::Kind::kStep ? "train/" : "eval/";
    const auto metric = [&](const std::string& name, double value) {
      // JSON has no number that is not finite; the server takes their names.
      nlohmann::ordered_json number = value;
      if (!std::isfinite(value))
        number = std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
      add({{"key", MetricName(name)},
           {"value", number},
           {"timestamp", absl::ToUnixMillis(event.time)},
           {"step", event.step}});
    };
    for (const auto& [name, value] : event.values) metric(group + name, value);
    for (const auto& [name, seconds] : event.phases)
      metric(absl::StrCat("phase_seconds/", name), seconds);
  }
  return batches;
}

std::string MlflowStatus(const std::string& state) {
  if (state == "SUCCEEDED") return "FINISHED";
  if (state == "FAILED") return "FAILED";
  if (state == "CANCELLED") return "KILLED";
  return state == "RUNNING" || state == "FINISHING" ? "RUNNING" : "SCHEDULED";
}

absl::StatusOr<nlohmann::json> MlflowTracker::Call(
    const std::string& method, const std::string& what, const nlohmann::ordered_json& body,
    const std::vector<std::pair<std::string, std::string>>& query) {
  const std::string text =
      body.is_null() ? ""
                     : body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  LL_ASSIGN_OR_RETURN(
      const std::string answer,
      Exchange(target_, method, absl::StrCat("/api/2.0/mlflow/", what), text, query));
  auto json = ParseJsonObject(answer);
  if (!json.ok()) return Annotate(json.status(), what);
  return json;
}

absl::StatusOr<std::string> MlflowTracker::ExperimentId() {
  if (!experiment_id_.empty()) return experiment_id_;
  const auto found =
      Call("GET", "experiments/get-by-name", nullptr, {{"experiment_name", experiment_}});
  if (found.ok()) {
    experiment_id_ = Text(*found, "experiment", "experiment_id");
    if (experiment_id_.empty()) return BadAnswer("experiments/get-by-name");
    return experiment_id_;
  }
  if (!absl::IsNotFound(found.status())) return found.status();
  LL_ASSIGN_OR_RETURN(const nlohmann::json made,
                      Call("POST", "experiments/create", {{"name", experiment_}}, {}));
  if (!made.contains("experiment_id") || !made["experiment_id"].is_string())
    return BadAnswer("experiments/create");
  experiment_id_ = made["experiment_id"].get<std::string>();
  return experiment_id_;
}

absl::StatusOr<std::string> MlflowTracker::RunId(const TrackedJob& job) {
  if (const auto known = runs_.find(job.id); known != runs_.end()) return known->second;
  LL_ASSIGN_OR_RETURN(const std::string experiment, ExperimentId());
  LL_ASSIGN_OR_RETURN(const nlohmann::json found,
                      Call("POST", "runs/search",
                           {{"experiment_ids", nlohmann::ordered_json::array({experiment})},
                            {"filter", absl::StrCat("tags.`ll.job_id` = '", job.id, "'")},
                            {"max_results", 1}},
                           {}));
  if (found.contains("runs") && found["runs"].is_array() && !found["runs"].empty()) {
    const std::string run_id = Text(found["runs"][0], "info", "run_id");
    if (run_id.empty()) return BadAnswer("runs/search");
    return runs_[job.id] = run_id;
  }
  LL_ASSIGN_OR_RETURN(const nlohmann::json made,
                      Call("POST", "runs/create", MlflowRun(job, experiment), {}));
  const std::string run_id =
      made.contains("run") ? Text(made["run"], "info", "run_id") : std::string();
  if (run_id.empty()) return BadAnswer("runs/create");
  runs_[job.id] = run_id;
  for (size_t from = 0; from < job.params.size(); from += kMostParams) {
    nlohmann::ordered_json params = nlohmann::ordered_json::array();
    for (size_t i = from; i < std::min(from + kMostParams, job.params.size()); ++i)
      params.push_back(Pair(job.params[i].first, job.params[i].second));
    LL_RETURN_IF_ERROR(
        Call("POST", "runs/log-batch", {{"run_id", run_id}, {"params", params}}, {}).status());
  }
  return run_id;
}

absl::Status MlflowTracker::UpdateRun(const std::string& run_id, const TrackerEvent& newest) {
  nlohmann::ordered_json update = {{"run_id", run_id}, {"status", MlflowStatus(newest.state)}};
  if (IsEndState(newest.state)) update["end_time"] = absl::ToUnixMillis(newest.time);
  LL_RETURN_IF_ERROR(Call("POST", "runs/update", update, {}).status());
  nlohmann::ordered_json tag = Pair("ll.reason", newest.reason);
  tag["run_id"] = run_id;
  return Call("POST", "runs/set-tag", tag, {}).status();
}

absl::Status MlflowTracker::Take(const std::vector<TrackerEvent>& batch) {
  std::map<std::string, std::vector<TrackerEvent>> by_job;
  for (const TrackerEvent& event : batch) {
    if (!event.replayed) by_job[event.job->id].push_back(event);
  }
  for (const auto& [job_id, events] : by_job) {
    LL_ASSIGN_OR_RETURN(const std::string run_id, RunId(*events.front().job));
    for (const nlohmann::ordered_json& body : MlflowBatches(run_id, events))
      LL_RETURN_IF_ERROR(Call("POST", "runs/log-batch", body, {}).status());
    const TrackerEvent* newest = nullptr;  // of its states
    for (const TrackerEvent& event : events)
      if (event.kind == TrackerEvent::Kind::kState) newest = &event;
    if (newest == nullptr) continue;
    LL_RETURN_IF_ERROR(UpdateRun(run_id, *newest));
    if (IsEndState(newest->state)) runs_.erase(job_id);
  }
  return absl::OkStatus();
}

}  // namespace ll
