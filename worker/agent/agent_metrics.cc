#include "worker/agent/agent_metrics.h"

#include <cmath>

namespace ll {
namespace {

prometheus::Gauge* OneGauge(prometheus::Registry& registry, const char* name, const char* help) {
  return &GaugeOf(registry, name, help).Add({});
}

prometheus::Counter* OneCounter(prometheus::Registry& registry, const char* name,
                                const char* help) {
  return &CounterOf(registry, name, help).Add({});
}

constexpr size_t kMostPhases = 32;

using RankLabels = std::map<std::string, std::string>;

RankLabels LabelsOf(const GangKey& gang, int rank) {
  // The epoch is no label: attempts of a job continue one series.
  return {{"job_id", gang.job_id}, {"rank", std::to_string(rank)}};
}

}  // namespace

AgentMetrics::AgentMetrics(const std::string& version)
    : connected_(OneGauge(registry_, "ll_worker_connected",
                          "1 while a session with the coordinator is open.")),
      headless_(
          OneGauge(registry_, "ll_worker_headless", "1 while the contact lease has expired.")),
      gangs_(OneGauge(registry_, "ll_worker_gangs", "Gangs with a living rank on this worker.")),
      busy_slots_(OneGauge(registry_, "ll_worker_busy_slots", "Slots with a living rank.")),
      slots_(OneGauge(registry_, "ll_worker_slots", "Slots of this worker.")),
      unacknowledged_reports_(OneGauge(registry_, "ll_worker_unacknowledged_reports",
                                       "Reports that the coordinator has not confirmed yet.")),
      dropped_lines_(
          OneCounter(registry_, "ll_worker_dropped_event_lines_total",
                     "Event lines that were no events or could not be written to the spool.")),
      sessions_(OneCounter(registry_, "ll_worker_sessions_total",
                           "Sessions opened with the coordinator.")),
      checkpoints_(CounterOf(registry_, "ll_worker_checkpoints_total",
                             "Checkpoints of this worker's ranks, by what became of them.")),
      step_(GaugeOf(registry_, "ll_rank_step",
                    "Newest optimizer step that the rank has told of: rank 0 "
                    "of each, the others every five seconds.")),
      tokens_per_second_(
          GaugeOf(registry_, "ll_rank_tokens_per_second", "Tokens per second of the newest step.")),
      step_seconds_(GaugeOf(registry_, "ll_rank_step_seconds", "Seconds of the newest step.")),
      peak_memory_bytes_(
          GaugeOf(registry_, "ll_rank_peak_memory_bytes", "Peak memory of the rank's process.")),
      phase_seconds_(
          GaugeOf(registry_, "ll_rank_phase_seconds",
                  "Seconds of the newest told step by phase; exchange is part of forward "
                  "and backward, wait is for slower ranks.")),
      straggler_score_(GaugeOf(registry_, "ll_rank_straggler_score",
                               "Compute time of the rank over the ranks' median, smoothed.")),
      events_(CounterOf(registry_, "ll_rank_events_total", "Events received from the rank.")),
      gpu_ranks_(GaugeOf(registry_, "ll_rank_gpu_info",
                         "1, with the GPU on which a rank runs: to join ll_gpu_* with job_id, rank "
                         "and attempt by worker and gpu.")) {
  GaugeOf(registry_, "ll_worker_build_info", "1, with the version of the agent.")
      .Add({{"version", version}})
      .Set(1);
}

void AgentMetrics::SetGpuRanks(const std::vector<GpuRank>& ranks) {
  for (const GpuRank& rank : ranks) {
    gpu_ranks_.Set({{"gpu", std::to_string(rank.gpu)},
                    {"job_id", rank.gang.job_id},
                    {"rank", std::to_string(rank.rank)},
                    {"attempt", std::to_string(rank.gang.epoch)}},
                   1);
  }
  gpu_ranks_.Sweep();
}

void AgentMetrics::SetWorker(bool connected, bool headless, int gangs, int busy_slots, int slots,
                             int64_t unacknowledged_reports) {
  connected_->Set(connected);
  headless_->Set(headless);
  gangs_->Set(gangs);
  busy_slots_->Set(busy_slots);
  slots_->Set(slots);
  unacknowledged_reports_->Set(static_cast<double>(unacknowledged_reports));
}

AgentMetrics::RankSeries& AgentMetrics::SeriesOf(const GangKey& gang, int rank) {
  const auto key = std::make_pair(gang, rank);
  if (const auto it = ranks_.find(key); it != ranks_.end()) return it->second;
  return ranks_.emplace(key, RankSeries{&events_.Add(LabelsOf(gang, rank))}).first->second;
}

void AgentMetrics::OnEvent(const GangKey& gang, int rank, const TrainerEvent& event) {
  RankSeries& series = SeriesOf(gang, rank);
  series.events->Increment();
  const auto set_if_known = [&](prometheus::Family<prometheus::Gauge>& family, double value) {
    if (std::isnan(value)) return;
    prometheus::Gauge*& gauge = series.gauges[&family];
    if (gauge == nullptr) gauge = &family.Add(LabelsOf(gang, rank));
    gauge->Set(value);
  };
  for (const auto& [phase, seconds] : event.phases) {
    // A trainer has a dozen; each is a series.
    if (series.phases.size() >= kMostPhases && series.phases.count(phase) == 0) continue;
    prometheus::Gauge*& gauge = series.phases[phase];
    if (gauge == nullptr) {
      gauge = &phase_seconds_.Add(
          {{"job_id", gang.job_id}, {"rank", std::to_string(rank)}, {"phase", phase}});
    }
    gauge->Set(seconds);
  }
  set_if_known(straggler_score_, event.straggler_score);
  CountCheckpoint(event);
  // Rank 0 alone tells each step; the others tell where they are with their times, now and then.
  if (event.event != "step" && event.event != "times") return;
  set_if_known(step_, static_cast<double>(event.step));
  if (event.event != "step") return;
  set_if_known(tokens_per_second_, event.tokens_per_second);
  set_if_known(step_seconds_, event.step_seconds);
  set_if_known(peak_memory_bytes_, event.peak_bytes);
}

void AgentMetrics::CountCheckpoint(const TrainerEvent& event) {
  const std::string result = event.event == "checkpoint"                ? "written"
                             : event.event == "checkpoint_copied"       ? "copied"
                             : event.about == "checkpoint"              ? "failed"
                             : event.about == "checkpoint_copy"         ? "copy_failed"
                             : event.about == "checkpoint_copy_dropped" ? "copy_dropped"
                                                                        : "";
  if (!result.empty()) checkpoints_.Add({{"result", result}}).Increment();
}

void AgentMetrics::Forget(const GangKey& gang) {
  for (auto it = ranks_.begin(); it != ranks_.end();) {
    if (it->first.first != gang) {
      ++it;
      continue;
    }
    const RankSeries gone = it->second;
    it = ranks_.erase(it);
    // Another attempt of the job on this host shares the series, and takes those that it has not
    // told of itself yet.
    bool shared = false;
    for (auto& [key, series] : ranks_) {
      if (series.events != gone.events) continue;
      shared = true;
      series.gauges.insert(gone.gauges.begin(), gone.gauges.end());
      series.phases.insert(gone.phases.begin(), gone.phases.end());
    }
    if (shared) continue;
    events_.Remove(gone.events);
    for (const auto& [family, gauge] : gone.gauges) family->Remove(gauge);
    for (const auto& [phase, gauge] : gone.phases) phase_seconds_.Remove(gauge);
  }
}

}  // namespace ll
