#include "coordinator/runtime/job_metrics.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "proto/job.pb.h"

namespace ll {
namespace {

constexpr absl::Duration kKeepAfterEnd = absl::Minutes(5);
constexpr size_t kMaxLabelBytes = 100;

// A user's text as a label's value: not endless.
std::string Label(const std::string& text) { return std::string(CutText(text, kMaxLabelBytes)); }

prometheus::Labels InfoLabels(const Job& job) {
  v1::JobSpec spec;
  if (job.payload != nullptr) spec.ParseFromString(job.payload->resolved_spec);
  return {{"job_id", job.id.value()},          {"name", Label(job.spec.name)},
          {"kind", Label(job.spec.kind)},      {"model", Label(spec.model())},
          {"method", Label(spec.method())},    {"queue", Label(QueueNameOf(job.spec))},
          {"attempt", absl::StrCat(job.epoch)}};
}

// 0: not forecast.
int64_t ForecastBytes(const Job& job) {
  v1::Forecast forecast;
  if (job.payload == nullptr || !forecast.ParseFromString(job.payload->forecast)) return 0;
  return forecast.bytes_per_rank();
}

}  // namespace

JobMetrics::JobMetrics(prometheus::Registry& registry, Clock& clock)
    : clock_(clock),
      info_(GaugeOf(registry, "ll_job_info",
                    "1, with name, kind, model, method, queue and attempt of a job that holds "
                    "slots: to join with other series by job_id.")),
      memory_forecast_(GaugeOf(registry, "ll_job_memory_forecast_bytes",
                               "Peak memory of a rank as forecast at admission.")),
      goodput_(GaugeOf(registry, "ll_job_goodput_ratio",
                       "Share of the time that a training held its slots that went into optimizer "
                       "steps done for the first time.")),
      checkpoint_age_(
          GaugeOf(registry, "ll_job_checkpoint_age_seconds",
                  "Time since a training's newest checkpoint was seen, or since it began.")),
      held_seconds_(
          CounterOf(registry, "ll_slots_held_seconds_total", "Slot-seconds that gangs have held.")
              .Add({})),
      trained_seconds_(
          CounterOf(registry, "ll_slots_trained_seconds_total",
                    "Slot-seconds that went into optimizer steps done for the first time.")
              .Add({})),
      repeated_seconds_(CounterOf(registry, "ll_slots_repeated_seconds_total",
                                  "Slot-seconds that went into optimizer steps done again after a "
                                  "failure.")
                            .Add({})) {}

void JobMetrics::Watch(const Job& job) {
  if (HoldsSlots(job.state)) series_.try_emplace(job.id);
}

void JobMetrics::OnRecovered(const Scheduler& scheduler) {
  absl::MutexLock lock(&mu_);
  for (const Job* job : scheduler.List({.limit = SIZE_MAX})) Watch(*job);
}

void JobMetrics::OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) {
  absl::MutexLock lock(&mu_);
  for (const JobId& id : jobs) {
    if (const Job* job = scheduler.Find(id)) Watch(*job);
  }
}

void JobMetrics::OnNews(const JobId& job, const TelemetryNews& news) {
  if (news.steps.empty()) return;
  absl::MutexLock lock(&mu_);
  Series& series = series_[job];
  for (const StepFacts& step : news.steps) {
    const bool again = step.step <= series.highest_step;
    (again ? series.new_repeated_seconds : series.new_trained_seconds) += step.step_seconds;
    if (!again) series.trained_seconds += step.step_seconds;
    series.highest_step = std::max(series.highest_step, step.step);
  }
}

void JobMetrics::Remove(Series& series) {
  const auto remove = [](GaugeFamily& family, prometheus::Gauge* gauge) {
    if (gauge != nullptr) family.Remove(gauge);
  };
  remove(info_, series.info);
  remove(memory_forecast_, series.memory_forecast);
  remove(goodput_, series.goodput);
  remove(checkpoint_age_, series.checkpoint_age);
}

void JobMetrics::OnDeleted(const JobId& job) {
  absl::MutexLock lock(&mu_);
  auto it = series_.find(job);
  if (it == series_.end()) return;
  Remove(it->second);
  series_.erase(it);
}

void JobMetrics::ShowInfo(const Job& job, Series& series) {
  if (series.epoch == job.epoch) return;
  if (series.info != nullptr) info_.Remove(series.info);
  series.epoch = job.epoch;
  series.info = &info_.Add(InfoLabels(job));
  series.info->Set(1);
  const int64_t bytes = series.memory_forecast == nullptr ? ForecastBytes(job) : 0;
  if (bytes == 0) return;
  series.memory_forecast = &memory_forecast_.Add({{"job_id", job.id.value()}});
  series.memory_forecast->Set(static_cast<double>(bytes));
}

void JobMetrics::ShowCheckpointAge(const Job& job, Series& series) {
  const absl::Duration now = clock_.Steady();
  const int64_t checkpoint = job.newest_checkpoint.has_value() ? job.newest_checkpoint->step : 0;
  // Until every rank trains there is nothing to lose.
  if (checkpoint != series.checkpoint || job.state == JobState::kStarting) series.safe_since = now;
  series.checkpoint = checkpoint;
  if (series.checkpoint_age == nullptr)
    series.checkpoint_age = &checkpoint_age_.Add({{"job_id", job.id.value()}});
  series.checkpoint_age->Set(absl::ToDoubleSeconds(now - series.safe_since));
}

void JobMetrics::CountSlots(absl::Duration elapsed, Series& series) {
  held_seconds_.Increment(absl::ToDoubleSeconds(elapsed) * series.ranks);
  trained_seconds_.Increment(series.new_trained_seconds * series.ranks);
  repeated_seconds_.Increment(series.new_repeated_seconds * series.ranks);
  series.new_trained_seconds = series.new_repeated_seconds = 0;
}

void JobMetrics::Update(const Job& job, absl::Duration elapsed, Series& series) {
  if (job.attempt.has_value()) series.ranks = static_cast<int>(job.attempt->ranks.size());
  const bool holds = HoldsSlots(job.state);
  CountSlots(holds ? elapsed : absl::ZeroDuration(), series);
  if (!holds) return;
  series.remove_at = absl::InfiniteDuration();
  series.held += elapsed;
  ShowInfo(job, series);
  if (job.spec.kind != "train") return;
  ShowCheckpointAge(job, series);
  if (series.held <= absl::ZeroDuration()) return;
  if (series.goodput == nullptr) series.goodput = &goodput_.Add({{"job_id", job.id.value()}});
  // Steps that were told late, after a time without contact, may belong to time that was not seen.
  series.goodput->Set(std::min(1.0, series.trained_seconds / absl::ToDoubleSeconds(series.held)));
}

void JobMetrics::OnTick(const Scheduler& scheduler) {
  absl::MutexLock lock(&mu_);
  const absl::Duration now = clock_.Steady();
  const absl::Duration elapsed = std::max(absl::ZeroDuration(), now - last_tick_);
  last_tick_ = now;
  for (auto it = series_.begin(); it != series_.end();) {
    auto next = std::next(it);
    Series& series = it->second;
    const Job* job = scheduler.Find(it->first);
    if (job != nullptr) Update(*job, elapsed, series);
    if (job == nullptr || !HoldsSlots(job->state)) {
      if (series.remove_at == absl::InfiniteDuration()) series.remove_at = now + kKeepAfterEnd;
      if (now >= series.remove_at) {
        Remove(series);
        series_.erase(it);
      }
    }
    it = next;
  }
}

}  // namespace ll
