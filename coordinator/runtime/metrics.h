// Every metric of the coordinator (design §5, "Metrics"), in one place. Base units; prefix ll_.
//
// Series of one job carry the label job_id, appear with its first step and stay five minutes after
// its end. There is no per-job histogram, so that a thousand jobs stay cheap to scrape.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "coordinator/runtime/driver.h"
#include "coordinator/runtime/telemetry.h"

namespace ll {

// Thread-safe.
class Metrics : public DriverListener {
 public:
  explicit Metrics(Clock& clock);

  std::shared_ptr<prometheus::Registry> registry() const { return registry_; }

  void OnNews(const JobId& job, const TelemetryNews& news);
  // `code` is a gRPC status name: "OK", "NOT_FOUND", …; `took` is 0 for a stream, whose length says
  // nothing.
  void OnRpc(const std::string& method, const std::string& code, absl::Duration took);

  // The server hung up a connection that was misused (rpc/connection_guard.h).
  void OnHungUp() { connections_hung_up_.Increment(); }

  // A training has ended: measured / forecast - 1; nullopt where that is not known.
  void OnForecast(std::optional<double> duration_error, std::optional<double> memory_error);

  // DriverListener
  void OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) override;
  void OnDeleted(const JobId& job) override;
  void OnTick(const Scheduler& scheduler) override;
  void OnStep(const Scheduler& scheduler, const Effects& effects, absl::Duration took) override;

 private:
  struct JobSeries {
    prometheus::Gauge *loss, *tokens_per_second, *learning_rate, *grad_norm, *peak_bytes, *step;
    prometheus::Gauge* mfu = nullptr;                // made with the first value
    prometheus::Gauge* perplexity = nullptr;         // made with the first value
    prometheus::Gauge* effective_context = nullptr;  // made with the first value
    prometheus::Gauge* straggler_score = nullptr;    // made with the first value
    std::map<std::pair<std::string, std::string>, prometheus::Counter*> guards;  // kind, action
    prometheus::Counter* tokens;
    absl::Duration remove_at = absl::InfiniteDuration();  // steady time
  };
  // Of the newest judged run of a schedule; gone with the schedule.
  struct ScheduleSeries {
    int64_t run = 0;  // shown
    prometheus::Gauge* verdict = nullptr;
    prometheus::Gauge *final_loss = nullptr, *perplexity = nullptr, *tokens_per_second = nullptr,
                      *success_time = nullptr;  // made with the first value
  };
  struct ForecastSeries {
    prometheus::Gauge* gauge = nullptr;
    absl::Duration remove_at;  // steady
  };
  void UpdateSchedules(const Scheduler& scheduler) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ShowRun(const std::string& name, const ScheduleRun& run, ScheduleSeries& series);
  void ShowSuccess(const std::string& name, const ScheduleRun& run, const Job* job,
                   ScheduleSeries& series);
  JobSeries& SeriesOf(const JobId& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RemoveSeries(const JobSeries& series) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  using GaugeFamily = prometheus::Family<prometheus::Gauge>;
  Clock& clock_;
  std::shared_ptr<prometheus::Registry> registry_;
  GaugeFamily &loss_, &tokens_per_second_, &learning_rate_, &grad_norm_, &mfu_, &peak_bytes_,
      &step_, &perplexity_, &effective_context_, &straggler_score_;
  prometheus::Family<prometheus::Counter>&tokens_, &guards_;
  prometheus::Histogram& step_seconds_;
  GaugeFamily& jobs_;
  prometheus::Histogram& job_wait_seconds_;
  prometheus::Histogram& scheduler_pass_seconds_;
  GaugeFamily& worker_up_;
  GaugeFamily &schedule_final_loss_, &schedule_perplexity_, &schedule_tokens_per_second_,
      &schedule_verdict_, &schedule_success_time_;
  GaugeFamily& forecast_error_;
  prometheus::Family<prometheus::Counter>& rpc_requests_;
  prometheus::Counter& connections_hung_up_;
  prometheus::Family<prometheus::Histogram>& rpc_seconds_;

  absl::Mutex mu_;
  absl::flat_hash_map<JobId, JobSeries> series_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<JobId, JobState> unfinished_ ABSL_GUARDED_BY(mu_);  // as last seen
  std::map<std::string, prometheus::Gauge*> workers_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, ScheduleSeries> schedules_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, ForecastSeries> forecasts_ ABSL_GUARDED_BY(mu_);  // by kind
};

}  // namespace ll
