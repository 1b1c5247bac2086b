#include "worker/trainer/guard/loss_guard.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace ll {
namespace {

constexpr double kSmallestDeviation = 0.01;  // of the mean

GuardAction ActionNamed(absl::string_view name) {
  for (const GuardAction action :
       {GuardAction::kWarn, GuardAction::kSkip, GuardAction::kRollback, GuardAction::kStop}) {
    if (name == GuardActionName(action)) return action;
  }
  LL_CHECK(false);  // the spec's keys allow no other
  return GuardAction::kStop;
}

void Remember(double loss, GuardState& state) {
  if (state.losses.size() == kLossWindow) state.losses.erase(state.losses.begin());
  state.losses.push_back(loss);
  state.in_a_row = 0;
}

// Counts a step that changes nothing.
void Skip(GuardState& state) {
  ++state.in_a_row;
  ++state.skipped_steps;
}

GuardVerdict NotANumber(const GuardPolicy& policy, int64_t step, double loss, double grad_norm,
                        GuardState& state) {
  GuardVerdict verdict;
  verdict.action = policy.on_nan;
  verdict.kind = GuardKind::kNan;
  const bool in_loss = !std::isfinite(loss);
  verdict.reason = absl::StrCat(in_loss ? "loss" : "grad_norm", " became ",
                                in_loss ? loss : grad_norm, " at step ", step + 1);
  if (verdict.action == GuardAction::kSkip && state.in_a_row + 1 >= kMostNans) {
    verdict.action = GuardAction::kStop;
    absl::StrAppend(&verdict.reason, ", the ", kMostNans, "th in a row");
  }
  if (verdict.action == GuardAction::kSkip) Skip(state);
  return verdict;
}

}  // namespace

absl::string_view GuardKindName(GuardKind kind) {
  return kind == GuardKind::kNan ? "nan" : "loss_spike";
}

absl::string_view GuardActionName(GuardAction action) {
  switch (action) {
    case GuardAction::kGoOn:
      return "go_on";
    case GuardAction::kWarn:
      return "warn";
    case GuardAction::kSkip:
      return "skip";
    case GuardAction::kRollback:
      return "rollback";
    case GuardAction::kStop:
      return "stop";
  }
  return "stop";
}

GuardPolicy GuardPolicyOf(const JobSpec& spec) {
  return {ActionNamed(*spec.on_nan), ActionNamed(*spec.on_loss_spike), *spec.loss_spike_sigma};
}

GuardVerdict JudgeStep(const GuardPolicy& policy, int64_t step, double loss, double grad_norm,
                       GuardState& state) {
  if (!std::isfinite(loss) || !std::isfinite(grad_norm))
    return NotANumber(policy, step, loss, grad_norm, state);
  GuardVerdict verdict;
  if (state.losses.size() < kLossWarmup) {
    Remember(loss, state);
    return verdict;
  }
  const double n = static_cast<double>(state.losses.size());
  double squares = 0;
  for (const double l : state.losses) verdict.mean += l / n;
  for (const double l : state.losses) squares += (l - verdict.mean) * (l - verdict.mean);
  verdict.deviation = std::max(std::sqrt(squares / n), kSmallestDeviation * std::abs(verdict.mean));
  if (loss <= verdict.mean + policy.sigma * verdict.deviation) {
    Remember(loss, state);
    return verdict;
  }
  verdict.kind = GuardKind::kLossSpike;
  verdict.action = policy.on_loss_spike;
  verdict.reason = absl::StrCat(
      "loss ", loss, " at step ", step + 1, " is ", (loss - verdict.mean) / verdict.deviation,
      " deviations above the mean ", verdict.mean, " of the last ", state.losses.size(), " steps");
  const bool in_place =
      verdict.action == GuardAction::kWarn || verdict.action == GuardAction::kSkip;
  if (in_place && state.in_a_row + 1 >= kMostSpikes) {
    verdict.action = GuardAction::kWarn;
    absl::StrAppend(&verdict.reason, ", the ", kMostSpikes, "th in a row: taken for the new level");
    state.losses.clear();
    Remember(loss, state);
    return verdict;
  }
  if (verdict.action == GuardAction::kWarn) ++state.in_a_row;
  if (verdict.action == GuardAction::kSkip) Skip(state);
  return verdict;
}

}  // namespace ll
