#include "coordinator/runtime/metrics.h"

#include <algorithm>
#include <set>

#include "rpc/metric_families.h"

namespace ll {
namespace {
constexpr absl::Duration kKeepAfterEnd = absl::Minutes(5);
// An error of long ago says nothing of the forecasts of today.
constexpr absl::Duration kKeepForecastError = absl::Hours(2);

const prometheus::Histogram::BucketBoundaries kStepBuckets = {0.01, 0.03, 0.1, 0.3, 1,   3,
                                                              10,   30,   100, 300, 1000};
const prometheus::Histogram::BucketBoundaries kWaitBuckets = {0.1,  1,    10,    60,   300,
                                                              1800, 3600, 14400, 86400};
// An agent's words become labels only where they are ours: each new one would be a series.
std::string KnownOr(const std::string& word, std::initializer_list<const char*> known) {
  return std::find(known.begin(), known.end(), word) != known.end() ? word : "other";
}
const prometheus::Histogram::BucketBoundaries kFastBuckets = {1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3,
                                                              1e-2, 3e-2, 0.1,  0.3,  1,    10};
}  // namespace

Metrics::Metrics(Clock& clock)
    : clock_(clock),
      registry_(std::make_shared<prometheus::Registry>()),
      loss_(GaugeOf(*registry_, "ll_train_loss", "Training loss of the newest step.")),
      tokens_per_second_(GaugeOf(*registry_, "ll_train_tokens_per_second",
                                 "Tokens trained per second, all ranks.")),
      learning_rate_(
          GaugeOf(*registry_, "ll_train_learning_rate", "Learning rate of the newest step.")),
      grad_norm_(
          GaugeOf(*registry_, "ll_train_grad_norm", "Global gradient norm before clipping.")),
      mfu_(GaugeOf(*registry_, "ll_train_mfu_ratio",
                   "Share of the device's peak FLOP/s that was used.")),
      peak_bytes_(GaugeOf(*registry_, "ll_train_peak_memory_bytes", "Peak memory of rank 0.")),
      step_(GaugeOf(*registry_, "ll_train_step", "Newest optimizer step.")),
      perplexity_(
          GaugeOf(*registry_, "ll_eval_perplexity", "Perplexity of the newest evaluation.")),
      effective_context_(
          GaugeOf(*registry_, "ll_eval_effective_context_length",
                  "Longest prompt, in tokens, up to which the newest evaluation found its key.")),
      straggler_score_(
          GaugeOf(*registry_, "ll_train_straggler_score",
                  "Compute time of the job's slowest rank over the ranks' median, smoothed.")),
      tokens_(CounterOf(*registry_, "ll_train_tokens_total",
                        "Tokens trained since the coordinator first saw the job.")),
      guards_(CounterOf(*registry_, "ll_train_guard_total",
                        "Steps that a guard caught, by kind (nan, loss_spike) and action.")),
      step_seconds_(
          HistogramOf(*registry_, "ll_train_step_seconds", "Duration of optimizer steps, all jobs.")
              .Add({}, kStepBuckets)),
      jobs_(GaugeOf(*registry_, "ll_jobs", "Jobs by state.")),
      job_wait_seconds_(
          HistogramOf(*registry_, "ll_job_wait_seconds", "From submission to the first start.")
              .Add({}, kWaitBuckets)),
      scheduler_pass_seconds_(
          HistogramOf(*registry_, "ll_scheduler_pass_seconds", "Duration of one decision.")
              .Add({}, kFastBuckets)),
      worker_up_(
          GaugeOf(*registry_, "ll_worker_up",
                  "1 while the worker's agent is in contact, 0 while it is not; absent: it was "
                  "cordoned, nothing ran there, and it went.")),
      schedule_final_loss_(GaugeOf(*registry_, "ll_schedule_last_final_loss",
                                   "Final loss of the schedule's newest judged run.")),
      schedule_perplexity_(GaugeOf(*registry_, "ll_schedule_last_perplexity",
                                   "Perplexity of the schedule's newest judged run.")),
      schedule_tokens_per_second_(
          GaugeOf(*registry_, "ll_schedule_last_tokens_per_second",
                  "Tokens per second of the schedule's newest judged run.")),
      schedule_verdict_(GaugeOf(*registry_, "ll_schedule_last_verdict",
                                "Newest verdict: 0 regressed or failed, 1 same or the first good "
                                "run, 2 better.")),
      schedule_success_time_(
          GaugeOf(*registry_, "ll_schedule_last_success_time_seconds",
                  "When the schedule's newest good run ended, in seconds since 1970.")),
      forecast_error_(GaugeOf(*registry_, "ll_forecast_error_ratio",
                              "Measured over forecast, less one, of the training that succeeded "
                              "last, for two hours, by kind (duration, memory).")),
      rpc_requests_(CounterOf(*registry_, "ll_rpc_requests_total",
                              "Finished calls by method and status code.")),
      connections_hung_up_(
          CounterOf(*registry_, "ll_rpc_connections_hung_up_total",
                    "Connections ended because they were misused: calls given up by the thousand, "
                    "headers without end.")
              .Add({})),
      rpc_seconds_(
          HistogramOf(*registry_, "ll_rpc_seconds", "Duration of unary calls by method.")) {}

Metrics::JobSeries& Metrics::SeriesOf(const JobId& job) {
  auto [it, fresh] = series_.try_emplace(job);
  if (fresh) {
    const prometheus::Labels labels = {{"job_id", job.value()}};
    JobSeries& s = it->second;
    s.loss = &loss_.Add(labels);
    s.tokens_per_second = &tokens_per_second_.Add(labels);
    s.learning_rate = &learning_rate_.Add(labels);
    s.grad_norm = &grad_norm_.Add(labels);
    s.peak_bytes = &peak_bytes_.Add(labels);
    s.step = &step_.Add(labels);
    s.tokens = &tokens_.Add(labels);
  }
  return it->second;
}

void Metrics::RemoveSeries(const JobSeries& s) {
  loss_.Remove(s.loss);
  tokens_per_second_.Remove(s.tokens_per_second);
  learning_rate_.Remove(s.learning_rate);
  grad_norm_.Remove(s.grad_norm);
  peak_bytes_.Remove(s.peak_bytes);
  step_.Remove(s.step);
  tokens_.Remove(s.tokens);
  if (s.mfu != nullptr) mfu_.Remove(s.mfu);
  if (s.perplexity != nullptr) perplexity_.Remove(s.perplexity);
  if (s.effective_context != nullptr) effective_context_.Remove(s.effective_context);
  if (s.straggler_score != nullptr) straggler_score_.Remove(s.straggler_score);
  for (const auto& [what, counter] : s.guards) guards_.Remove(counter);
}

void Metrics::OnNews(const JobId& job, const TelemetryNews& news) {
  if (news.steps.empty() && news.guards.empty() && !news.eval_perplexity &&
      !news.eval_effective_context_length)
    return;
  absl::MutexLock lock(&mu_);
  JobSeries& s = SeriesOf(job);
  for (const StepFacts& step : news.steps) {
    s.tokens->Increment(static_cast<double>(step.tokens));
    step_seconds_.Observe(step.step_seconds);
  }
  if (!news.steps.empty()) {
    const StepFacts& newest = news.steps.back();
    s.loss->Set(newest.loss);
    s.tokens_per_second->Set(newest.tokens_per_second);
    s.learning_rate->Set(newest.learning_rate);
    s.grad_norm->Set(newest.grad_norm);
    s.peak_bytes->Set(static_cast<double>(newest.peak_bytes));
    s.step->Set(static_cast<double>(newest.step));
    if (newest.mfu.has_value()) {
      if (s.mfu == nullptr) s.mfu = &mfu_.Add({{"job_id", job.value()}});
      s.mfu->Set(*newest.mfu);
    }
    if (newest.straggler_score.has_value()) {
      if (s.straggler_score == nullptr)
        s.straggler_score = &straggler_score_.Add({{"job_id", job.value()}});
      s.straggler_score->Set(*newest.straggler_score);
    }
  }
  for (const GuardFacts& guard : news.guards) {
    const std::string kind = KnownOr(guard.kind, {"nan", "loss_spike"});
    const std::string action = KnownOr(guard.action, {"warn", "skip", "rollback", "stop"});
    prometheus::Counter*& counter = s.guards[{kind, action}];
    if (counter == nullptr)
      counter = &guards_.Add({{"job_id", job.value()}, {"kind", kind}, {"action", action}});
    counter->Increment();
  }
  if (news.eval_perplexity.has_value()) {
    if (s.perplexity == nullptr) s.perplexity = &perplexity_.Add({{"job_id", job.value()}});
    s.perplexity->Set(*news.eval_perplexity);
  }
  if (news.eval_effective_context_length.has_value()) {
    if (s.effective_context == nullptr)
      s.effective_context = &effective_context_.Add({{"job_id", job.value()}});
    s.effective_context->Set(*news.eval_effective_context_length);
  }
}

void Metrics::OnRpc(const std::string& method, const std::string& code, absl::Duration took) {
  rpc_requests_.Add({{"method", method}, {"code", code}}).Increment();
  if (took > absl::ZeroDuration())
    rpc_seconds_.Add({{"method", method}}, kFastBuckets).Observe(absl::ToDoubleSeconds(took));
}

void Metrics::OnForecast(std::optional<double> duration_error, std::optional<double> memory_error) {
  absl::MutexLock lock(&mu_);
  const auto show = [&](const std::string& kind, std::optional<double> error) {
    mu_.AssertHeld();
    if (!error) return;
    ForecastSeries& series = forecasts_[kind];
    if (series.gauge == nullptr) series.gauge = &forecast_error_.Add({{"kind", kind}});
    series.gauge->Set(*error);
    series.remove_at = clock_.Steady() + kKeepForecastError;
  };
  show("duration", duration_error);
  show("memory", memory_error);
}

void Metrics::OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) {
  absl::MutexLock lock(&mu_);
  for (const JobId& id : jobs) {
    const Job* job = scheduler.Find(id);
    if (job == nullptr) continue;
    if (IsTerminal(job->state)) {
      unfinished_.erase(id);
      continue;
    }
    auto [it, fresh] = unfinished_.try_emplace(id, JobState::kQueued);
    if (job->state == JobState::kStarting && it->second != JobState::kStarting && job->epoch == 1) {
      job_wait_seconds_.Observe(absl::ToDoubleSeconds(clock_.Now() - job->submitted));
    }
    it->second = job->state;
  }
}

void Metrics::OnDeleted(const JobId& job) {
  absl::MutexLock lock(&mu_);
  unfinished_.erase(job);
  auto it = series_.find(job);
  if (it == series_.end()) return;
  RemoveSeries(it->second);
  series_.erase(it);
}

void Metrics::OnTick(const Scheduler& scheduler) {
  std::map<JobState, int> counts;
  for (const auto& [state, count] : scheduler.CountByState()) counts[state] = count;
  for (JobState state : kAllJobStates) {
    jobs_.Add({{"state", std::string(JobStateName(state))}}).Set(counts[state]);
  }
  absl::MutexLock lock(&mu_);
  std::set<std::string> known;
  for (const auto& [name, worker] : scheduler.workers()) {
    const bool up = worker.connected && worker.silence <= scheduler.options().lease;
    if (!up && worker.retired()) continue;
    known.insert(name.value());
    auto [it, fresh] = workers_.try_emplace(name.value(), nullptr);
    if (fresh) it->second = &worker_up_.Add({{"worker", name.value()}});
    it->second->Set(up ? 1 : 0);
  }
  for (auto it = workers_.begin(); it != workers_.end();) {
    if (known.count(it->first) == 0) {
      worker_up_.Remove(it->second);
      it = workers_.erase(it);
    } else {
      ++it;
    }
  }
  UpdateSchedules(scheduler);
  const absl::Duration now = clock_.Steady();
  std::erase_if(forecasts_, [&](const auto& entry) {
    if (now < entry.second.remove_at) return false;
    forecast_error_.Remove(entry.second.gauge);
    return true;
  });
  for (auto it = series_.begin(); it != series_.end();) {
    auto next = std::next(it);
    const Job* job = scheduler.Find(it->first);
    const bool over = job == nullptr || IsTerminal(job->state);
    if (over && it->second.remove_at == absl::InfiniteDuration())
      it->second.remove_at = now + kKeepAfterEnd;
    if (now >= it->second.remove_at) {
      RemoveSeries(it->second);
      series_.erase(it);
    }
    it = next;
  }
}

void Metrics::UpdateSchedules(const Scheduler& scheduler) {
  const auto remove = [](GaugeFamily& family, prometheus::Gauge* gauge) {
    if (gauge != nullptr) family.Remove(gauge);
  };
  for (auto it = schedules_.begin(); it != schedules_.end();) {
    if (scheduler.schedules().count(it->first) > 0) {
      ++it;
      continue;
    }
    remove(schedule_final_loss_, it->second.final_loss);
    remove(schedule_perplexity_, it->second.perplexity);
    remove(schedule_tokens_per_second_, it->second.tokens_per_second);
    remove(schedule_verdict_, it->second.verdict);
    remove(schedule_success_time_, it->second.success_time);
    it = schedules_.erase(it);
  }
  for (const auto& [name, schedule] : scheduler.schedules()) {
    const auto newest = std::find_if(schedule.runs.rbegin(), schedule.runs.rend(), [](auto& run) {
      const RunResult result = run.second.judgement.result;
      return result != RunResult::kPending && result != RunResult::kUnknown;
    });
    if (newest == schedule.runs.rend()) continue;
    ScheduleSeries& series = schedules_[name];
    if (series.run == newest->first) continue;
    ShowRun(name, newest->second, series);
    // In a process that has just begun this may be an earlier one.
    const auto good = std::find_if(newest, schedule.runs.rend(),
                                   [](auto& run) { return IsGood(run.second.judgement.result); });
    if (good != schedule.runs.rend())
      ShowSuccess(name, good->second, scheduler.Find(good->second.job), series);
  }
}

void Metrics::ShowRun(const std::string& name, const ScheduleRun& run, ScheduleSeries& series) {
  const prometheus::Labels labels = {{"schedule", name}};
  const auto show = [&labels](GaugeFamily& family, prometheus::Gauge*& gauge, double value) {
    if (gauge == nullptr) gauge = &family.Add(labels);
    gauge->Set(value);
  };
  series.run = run.number;
  const RunResult result = run.judgement.result;
  const RunMeasures& measures = run.measures;
  show(schedule_verdict_, series.verdict,
       result == RunResult::kBetter ? 2
       : IsGood(result)             ? 1
                                    : 0);
  if (measures.final_loss) show(schedule_final_loss_, series.final_loss, *measures.final_loss);
  if (measures.perplexity) show(schedule_perplexity_, series.perplexity, *measures.perplexity);
  if (measures.tokens_per_second)
    show(schedule_tokens_per_second_, series.tokens_per_second, *measures.tokens_per_second);
}

void Metrics::ShowSuccess(const std::string& name, const ScheduleRun& run, const Job* job,
                          ScheduleSeries& series) {
  const absl::Time ended = job != nullptr ? job->finished : run.judgement.time;
  if (series.success_time == nullptr)
    series.success_time = &schedule_success_time_.Add({{"schedule", name}});
  series.success_time->Set(absl::ToDoubleSeconds(ended - absl::UnixEpoch()));
}

void Metrics::OnStep(const Scheduler&, const Effects&, absl::Duration took) {
  scheduler_pass_seconds_.Observe(absl::ToDoubleSeconds(took));
}

}  // namespace ll
