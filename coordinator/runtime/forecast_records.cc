#include "coordinator/runtime/forecast_records.h"

#include <google/protobuf/struct.pb.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "proto/job.pb.h"

namespace ll {
namespace {

constexpr size_t kRecordsThatCount = 20;

std::optional<double> Error(double actual, double forecast) {
  if (actual <= 0 || forecast <= 0) return std::nullopt;
  return actual / forecast - 1;
}

// nullopt: no training, or one that was not forecast.
std::optional<ForecastRecord> RecordOf(const Job& job, const std::optional<StepFacts>& newest) {
  v1::Forecast forecast;
  v1::JobSpec resolved;
  if (job.spec.kind != "train" || !forecast.ParseFromString(job.payload->forecast) ||
      !forecast.has_plan() || !resolved.ParseFromString(job.payload->resolved_spec))
    return std::nullopt;
  ForecastRecord record;
  record.job_id = job.id.value();
  record.time = job.finished;
  record.device = forecast.plan().device();
  record.model = resolved.model();
  record.method = resolved.method();
  record.gpus = job.spec.gpus;
  record.forecast_seconds = forecast.duration_seconds();
  record.actual_seconds = absl::ToDoubleSeconds(job.run_time);
  // Without what earlier records have added: factors must not be of one another.
  record.forecast_bytes = forecast.bytes_per_rank() - forecast.plan().memory().correction();
  record.available_bytes = forecast.available_bytes_per_slot();
  if (newest) record.peak_bytes = newest->peak_bytes;
  google::protobuf::Struct result;
  if (result.ParseFromString(job.result)) {
    const auto steps = result.fields().find("memory_steps_down");
    if (steps != result.fields().end())
      record.memory_steps_down = static_cast<int64_t>(steps->second.number_value());
  }
  return record;
}

}  // namespace

std::optional<double> ForecastRecord::DurationError() const {
  return Error(actual_seconds, forecast_seconds);
}

std::optional<double> ForecastRecord::MemoryError() const {
  return Error(static_cast<double>(peak_bytes), static_cast<double>(forecast_bytes));
}

std::string ForecastRecordToJson(const ForecastRecord& r) {
  const nlohmann::ordered_json json = {{"job_id", r.job_id},
                                       {"time", absl::FormatTime(r.time, absl::UTCTimeZone())},
                                       {"device", r.device},
                                       {"model", r.model},
                                       {"method", r.method},
                                       {"gpus", r.gpus},
                                       {"forecast_seconds", r.forecast_seconds},
                                       {"actual_seconds", r.actual_seconds},
                                       {"forecast_bytes", r.forecast_bytes},
                                       {"peak_bytes", r.peak_bytes},
                                       {"available_bytes", r.available_bytes},
                                       {"memory_steps_down", r.memory_steps_down}};
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

absl::StatusOr<ForecastRecord> ParseForecastRecord(absl::string_view text) {
  LL_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonObject(text, {2, 100}));
  ForecastRecord r;
  std::string time;
  const std::pair<const char*, std::string*> texts[] = {{"job_id", &r.job_id},
                                                        {"time", &time},
                                                        {"device", &r.device},
                                                        {"model", &r.model},
                                                        {"method", &r.method}};
  for (const auto& [key, value] : texts) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_string())
      return MakeFieldError({key, "text", found == json.end() ? "nothing" : JsonExcerpt(*found)});
    *value = found->get<std::string>();
  }
  double gpus = 0, forecast_bytes = 0, peak = 0, available = 0, steps = 0;
  const std::pair<const char*, double*> numbers[] = {{"gpus", &gpus},
                                                     {"forecast_seconds", &r.forecast_seconds},
                                                     {"actual_seconds", &r.actual_seconds},
                                                     {"forecast_bytes", &forecast_bytes},
                                                     {"peak_bytes", &peak},
                                                     {"available_bytes", &available},
                                                     {"memory_steps_down", &steps}};
  for (const auto& [key, value] : numbers) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number() || found->get<double>() < 0 ||
        found->get<double>() > 1e18) {
      return MakeFieldError(
          {key, "a number from 0 on", found == json.end() ? "nothing" : JsonExcerpt(*found)});
    }
    *value = found->get<double>();
  }
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, time, &r.time, &error))
    return MakeFieldError({"time", "RFC 3339", OneLine(time)});
  r.gpus = static_cast<int64_t>(gpus);
  r.forecast_bytes = static_cast<int64_t>(forecast_bytes);
  r.peak_bytes = static_cast<int64_t>(peak);
  r.available_bytes = static_cast<int64_t>(available);
  r.memory_steps_down = static_cast<int64_t>(steps);
  return r;
}

ForecastRecords::ForecastRecords(std::string path, const Telemetry& telemetry, Clock& clock,
                                 std::function<void(const ForecastRecord&)> told)
    : path_(std::move(path)), telemetry_(telemetry), clock_(clock), told_(std::move(told)) {}

absl::Status ForecastRecords::Load() {
  if (!FileExists(path_)) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path_));
  absl::MutexLock lock(&mu_);
  size_t lines = 0, damaged = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    ++lines;
    const auto record = ParseForecastRecord(line);
    if (record.ok()) {
      Take(*record);
    } else {
      ++damaged;
    }
  }
  if (damaged > 0) LL_LOG(kWarning) << path_ << ": left out " << damaged << " damaged lines";
  if (lines <= 2 * kMostRecords) return absl::OkStatus();
  const auto append = [](std::string* out, const ForecastRecord& record) {
    absl::StrAppend(out, ForecastRecordToJson(record), "\n");
  };
  return WriteFileAtomic(path_, absl::StrJoin(records_, "", append));
}

void ForecastRecords::Take(const ForecastRecord& record) {
  if (records_.size() == kMostRecords) records_.erase(records_.begin());
  records_.push_back(record);
}

void ForecastRecords::OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) {
  absl::MutexLock lock(&mu_);
  for (const JobId& id : jobs) {
    const Job* job = scheduler.Find(id);
    if (job != nullptr && job->state == JobState::kSucceeded && job->spec.kind == "train")
      pending_.try_emplace(id, clock_.Steady());
  }
}

void ForecastRecords::OnTick(const Scheduler& scheduler) {
  std::vector<ForecastRecord> fresh;
  {
    absl::MutexLock lock(&mu_);
    for (auto it = pending_.begin(); it != pending_.end();) {
      const Job* job = scheduler.Find(it->first);
      const auto newest = telemetry_.Newest(it->first);
      const bool all = newest && newest->max_steps > 0 && newest->step >= newest->max_steps;
      if (job != nullptr && !all && clock_.Steady() - it->second < kSettle) {
        ++it;
        continue;
      }
      if (const auto record = job == nullptr ? std::nullopt : RecordOf(*job, newest)) {
        Take(*record);
        fresh.push_back(*record);
      }
      it = pending_.erase(it);
    }
  }
  for (const ForecastRecord& record : fresh) {
    auto file = AppendOnlyFile::Open(path_);
    const absl::Status written =
        file.ok() ? file->Append(ForecastRecordToJson(record) + "\n") : file.status();
    if (!written.ok()) LL_LOG(kWarning) << path_ << ": " << written.message();
    told_(record);
  }
}

std::vector<ForecastRecord> ForecastRecords::Records() const {
  absl::MutexLock lock(&mu_);
  return records_;
}

double ForecastRecords::MemoryFactor(const std::string& device, const std::string& model,
                                     const std::string& method) const {
  absl::MutexLock lock(&mu_);
  double factor = 1;
  size_t counted = 0;
  for (auto r = records_.rbegin(); r != records_.rend() && counted < kRecordsThatCount; ++r) {
    if (r->device != device || r->model != model || r->method != method || r->forecast_bytes <= 0)
      continue;
    ++counted;
    const int64_t needed =
        r->memory_steps_down > 0 ? std::max(r->peak_bytes, r->available_bytes) : r->peak_bytes;
    factor = std::max(factor, static_cast<double>(needed) / static_cast<double>(r->forecast_bytes));
  }
  return std::min(factor, kLargestFactor);
}

}  // namespace ll
