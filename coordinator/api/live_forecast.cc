#include "coordinator/api/live_forecast.h"

#include <algorithm>
#include <string>

#include "coordinator/api/convert.h"
#include "coordinator/core/job_state.h"

namespace ll {
namespace {

constexpr double kSecondsPerHour = 3600;

void FillEnd(absl::Time low, absl::Time high, v1::Forecast& f) {
  if (high == absl::InfiniteFuture()) return;
  *f.mutable_finish_low() = ToTimestamp(low);
  *f.mutable_finish_high() = ToTimestamp(high);
}

void FillWait(const Measured& measured, absl::Time now, v1::Forecast& f) {
  if (!measured.wait) return;
  const absl::Time low = now + measured.wait->first, high = now + measured.wait->second;
  *f.mutable_start_low() = ToTimestamp(low);
  *f.mutable_start_high() = ToTimestamp(high);
  if (f.duration_seconds() <= 0) return;
  FillEnd(low + absl::Seconds(f.duration_low_seconds()),
          high + absl::Seconds(f.duration_high_seconds()), f);
}

void FillUsed(const Job& job, v1::Forecast& f) {
  // Where the number of ranks changed, forecast_done is what spec.gpus ranks would have taken.
  const double rank_seconds =
      absl::ToDoubleSeconds(job.spec.max_gpus > job.spec.gpus ? job.forecast_done : job.run_time) *
      job.spec.gpus;
  f.set_actual_seconds(absl::ToDoubleSeconds(job.run_time));
  f.set_actual_gpu_hours(rank_seconds / kSecondsPerHour);
  f.set_actual_energy_joules(rank_seconds * f.power_watts());
  f.set_actual_cost(f.actual_gpu_hours() * f.price_per_gpu_hour());
}

void FillRest(const Job& job, const Measured& measured, absl::Time now, v1::Forecast& f) {
  const StepFacts& newest = *measured.newest;
  const int64_t left = newest.max_steps - newest.step;
  if (newest.max_steps <= 0 || left < 0 || measured.pace.steps() == 0) return;
  const auto [low, high] = measured.pace.TimeFor(left);
  FillEnd(std::max(now, newest.time + low), std::max(now, newest.time + high), f);
  f.set_revised_duration_seconds(f.actual_seconds() + static_cast<double>(left) *
                                                          std::max(measured.pace.median_seconds(),
                                                                   measured.pace.wall_seconds()));
  f.set_revised_cost(f.revised_duration_seconds() / kSecondsPerHour * job.spec.gpus *
                     f.price_per_gpu_hour());
}

}  // namespace

void ReviseForecast(const Job& job, const Measured& measured, absl::Time now, v1::Forecast& f) {
  if (job.state == JobState::kQueued) FillWait(measured, now, f);
  if (job.epoch == 0 || !measured.newest) return;
  FillUsed(job, f);
  if (measured.pace.steps() > 0) {
    f.set_measured_step_seconds(measured.pace.median_seconds());
    if (f.plan().step_seconds() > 0)
      f.set_step_error_ratio(measured.pace.median_seconds() / f.plan().step_seconds() - 1);
  }
  if (measured.newest->peak_bytes > 0 && f.bytes_per_rank() > 0) {
    f.set_memory_error_ratio(static_cast<double>(measured.newest->peak_bytes) /
                                 static_cast<double>(f.bytes_per_rank()) -
                             1);
  }
  if (job.state == JobState::kRunning) FillRest(job, measured, now, f);
  if (job.state == JobState::kSucceeded && f.duration_seconds() > 0)
    f.set_duration_error_ratio(f.actual_seconds() / f.duration_seconds() - 1);
}

}  // namespace ll
