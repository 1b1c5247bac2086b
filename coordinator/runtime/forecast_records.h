// Forecast beside actual, of every training that has succeeded: one JSON object a line in
// DATA_DIR/forecasts.jsonl, kept when the jobs are deleted. What it teaches goes back into
// admission (MemoryFactor) and out as ll_forecast_error_ratio.
//
// Written by the driver's thread when the job's last step has arrived, or kSettle after its end:
// one line a job, not synced. A crash in between costs that job's line and nothing else.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "coordinator/runtime/driver_loop.h"
#include "coordinator/runtime/telemetry.h"

namespace ll {

struct ForecastRecord {
  std::string job_id;
  absl::Time time;     // when it ended
  std::string device;  // kind
  std::string model, method;
  int64_t gpus = 1;
  double forecast_seconds = 0, actual_seconds = 0;  // trained; forecast 0: not known
  int64_t forecast_bytes = 0, peak_bytes = 0;       // of rank 0; peak 0: not told
  int64_t available_bytes = 0;                      // of a slot
  int64_t memory_steps_down = 0;  // out of memory so often (worker/trainer/memory_policy.h)

  // Measured / forecast - 1; nullopt where one of them is not known.
  std::optional<double> DurationError() const;
  std::optional<double> MemoryError() const;
};
std::string ForecastRecordToJson(const ForecastRecord& record);
// InvalidArgument naming the key.
absl::StatusOr<ForecastRecord> ParseForecastRecord(absl::string_view json);

// A listener of the driver. Thread-safe.
class ForecastRecords : public DriverListener {
 public:
  static constexpr absl::Duration kSettle = absl::Seconds(30);
  static constexpr size_t kMostRecords = 10'000;  // the newest; Load cuts a file of twice as many
  static constexpr double kLargestFactor = 1.5;   // beyond that the job is another one

  // `telemetry` and `clock` outlive this. `told` hears of every new record, on the driver's thread.
  ForecastRecords(std::string path, const Telemetry& telemetry, Clock& clock,
                  std::function<void(const ForecastRecord&)> told);
  // Reads what is there; lines that are cut or damaged are left out with a warning.
  absl::Status Load();

  void OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) override;
  void OnTick(const Scheduler& scheduler) override;

  std::vector<ForecastRecord> Records() const;
  // How many times its forecast the memory of a training like this was, at the most, in the newest
  // 20 records; at least 1. One that ran out of memory needed more than its slot had.
  double MemoryFactor(const std::string& device, const std::string& model,
                      const std::string& method) const;

 private:
  void Take(const ForecastRecord& record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string path_;
  const Telemetry& telemetry_;
  Clock& clock_;
  const std::function<void(const ForecastRecord&)> told_;
  mutable absl::Mutex mu_;
  std::map<JobId, absl::Duration> pending_ ABSL_GUARDED_BY(mu_);  // steady time of their end
  std::vector<ForecastRecord> records_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
