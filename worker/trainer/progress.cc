#include "worker/trainer/progress.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "model/plan/time_plan.h"
#include "worker/trainer/device.h"

namespace ll {
namespace {

// How often a rank tells its own times: they are looked at as metrics, not step by step.
constexpr absl::Duration kTimesEvery = absl::Seconds(5);

}  // namespace

nlohmann::ordered_json ModelFlopsUtilization(const Training& training, const StepReport& report,
                                             int64_t step, int ranks, double peak_flops) {
  if (peak_flops <= 0) return nullptr;
  const double tokens = static_cast<double>(report.tokens);
  const double weights =
      (training.options.train_all ? 6.0 : 4.0) * static_cast<double>(training.base_parameters);
  const int64_t row_tokens = *training.spec.max_seq_length;
  const std::string kind = step > training.full_attention_from ? "full" : *training.spec.attention;
  const double attention =
      tokens / static_cast<double>(row_tokens) *
      CausalAttentionFlops(training.config, row_tokens, kind, training.attention.group_tokens);
  return (weights * tokens + 3.5 * attention) / (report.step_seconds * peak_flops * ranks);
}

Progress::Progress(const Training& training, EventSink& events, GangFacts gang)
    : training_(training), events_(events), gang_(std::move(gang)), stragglers_(ranks()) {}

void Progress::Step(const StepReport& report, const TrainerState& state) {
  tokens_ += report.tokens;
  seconds_ += report.step_seconds;
  if (ranks() > 1) {
    WatchRanks(report, state.step);
    TellTimes(report, state.step);
  }
  const bool last = state.step == *training_.spec.max_steps;
  if (state.step % *training_.spec.logging_steps != 0 && !last) return;
  if (gang_.rank == 0) TellStep(report, state);
  checkpoint_seconds_ = 0;
}

nlohmann::ordered_json Progress::Times(const StepReport& report) const {
  return {{"data_seconds", report.data_seconds},
          {"forward_seconds", report.model.forward},
          {"head_seconds", report.model.head},
          {"backward_seconds", report.model.backward},
          {"exchange_seconds", report.exchange_seconds},
          {"wait_seconds", report.wait_seconds},
          {"reduce_seconds", report.reduce_seconds},
          {"optimizer_seconds", report.optimizer_seconds},
          {"checkpoint_seconds", checkpoint_seconds_}};
}

void Progress::WatchRanks(const StepReport& report, int64_t step) {
  for (const StragglerNews& news :
       stragglers_.Step(report.compute_seconds, report.compute_tokens)) {
    if (gang_.rank != 0) continue;
    const std::string& host = gang_.hosts[static_cast<size_t>(news.rank)];
    const char* does = news.slow ? "computes" : "no longer lags: it computes";
    events_.Emit(
        "straggler",
        {{"step", step},
         {"straggler", news.rank},
         {"host", host},
         {"slow", news.slow},
         {"score", news.score},
         {"message", absl::StrFormat("rank %d on %s %s %.2f times as long as the median rank",
                                     news.rank, host, does, news.score)}});
  }
}

void Progress::TellTimes(const StepReport& report, int64_t step) {
  const absl::Duration now = RealClock().Steady();
  if (now - told_times_ < kTimesEvery) return;
  told_times_ = now;
  nlohmann::ordered_json event = {{"step", step}};
  event.update(Times(report));
  event["straggler_score"] = stragglers_.score(gang_.rank);
  events_.Emit("times", event);
}

void Progress::TellStep(const StepReport& report, const TrainerState& state) {
  nlohmann::ordered_json event = {
      {"step", state.step},
      {"loss", report.loss},
      {"grad_norm", report.grad_norm},
      {"learning_rate", report.learning_rate},
      {"tokens", report.tokens},
      {"tokens_total", state.tokens_consumed},
      {"step_seconds", report.step_seconds},
      {"tokens_per_second", static_cast<double>(report.tokens) / report.step_seconds},
      {"mfu", ModelFlopsUtilization(training_, report, state.step, ranks(), gang_.peak_flops)},
      {"peak_bytes", PeakMemoryBytes()},
      {"max_steps", *training_.spec.max_steps}};
  event.update(Times(report));
  if (ranks() > 1) event["straggler_score"] = stragglers_.score(stragglers_.slowest());
  events_.Emit("step", event);
}

void Progress::Done(const TrainerState& state, const End& end) {
  if (gang_.rank != 0) return;
  nlohmann::ordered_json result = {
      {"loss", state.last_loss},
      {"steps", state.step},
      {"first_step", end.first_step},
      {"tokens", state.tokens_consumed},
      {"tokens_per_second", seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0.0},
      {"peak_bytes", PeakMemoryBytes()},
      {"checkpoint", end.checkpoint}};
  if (state.memory_steps_down > 0) {
    result["memory_steps_down"] = state.memory_steps_down;
    result["recompute"] = *training_.spec.recompute;
    result["activation_offload"] = *training_.spec.activation_offload;
  }
  if (!end.stop_reason.empty()) result["stop_reason"] = end.stop_reason;
  events_.Emit("done", {{"result", std::move(result)}});
}

}  // namespace ll
