// Steps that must not count: a loss or gradient that is not a number, and a loss far above those
// before it. Pure: a verdict follows from the loss, the norm and what is stored with a checkpoint,
// so every rank and every resumed run judges alike.
//
// A spike is a loss above mean + sigma * deviation of the last kLossWindow healthy steps.
// - Nothing is judged before kLossWarmup healthy steps. With 20 normal losses and the default of 6
//   deviations a false alarm comes once in 10^5 steps, with a full window once in 10^7 (Student's
//   t of 19 and 63 degrees of freedom).
// - A steady rise never fires from 2 deviations on: of w losses on a line the next one stands
//   (w + 1) / 2 slopes above their mean, and their deviation is sqrt((w^2 - 1) / 12) slopes, so it
//   is less than 1.92 deviations above (w = 20; sqrt(3) for large w).
// - The deviation counts as at least 1 % of the mean, so that a loss that hardly moves may move.
// - Guarded steps do not enter the history: one spike does not hide the next. A loss that stays up
//   is another matter: the kMostSpikes-th spike in a row is a new level, not a spike, and the
//   history starts anew with it.
// Window, warm-up and 6 deviations are of the size OLMo-core's SkipStepOptimizer uses (128, 64, 6),
// halved and less for LongLoRA's runs of 1,000 steps.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "model/spec/job_spec.h"

namespace ll {

inline constexpr size_t kLossWindow = 64, kLossWarmup = 20;
inline constexpr int64_t kMostSpikes = 8;     // in a row
inline constexpr int64_t kMostNans = 8;       // in a row under `skip`; then the weights are broken
inline constexpr int64_t kMostRollbacks = 4;  // of a job

enum class GuardKind { kNan, kLossSpike };
enum class GuardAction { kGoOn, kWarn, kSkip, kRollback, kStop };

// "nan", "loss_spike".
absl::string_view GuardKindName(GuardKind kind);
// "go_on", "warn", "skip", "rollback", "stop".
absl::string_view GuardActionName(GuardAction action);

struct GuardPolicy {
  GuardAction on_nan = GuardAction::kStop;
  GuardAction on_loss_spike = GuardAction::kWarn;
  double sigma = 6;
};
// `spec` is resolved.
GuardPolicy GuardPolicyOf(const JobSpec& spec);

// What guarding remembers; part of trainer_state.json.
struct GuardState {
  std::vector<double> losses;  // of the newest healthy steps, oldest first, at most kLossWindow
  int64_t in_a_row = 0;        // guarded steps since the newest healthy one
  int64_t skipped_steps = 0;   // that changed no weight
  int64_t rollbacks = 0;

  bool operator==(const GuardState&) const = default;
};

struct GuardVerdict {
  GuardAction action = GuardAction::kGoOn;
  GuardKind kind = GuardKind::kNan;
  double mean = 0, deviation = 0;  // of the history, where it is a spike
  std::string reason;              // a sentence; empty where the step is healthy

  // Whether the optimizer takes the step.
  bool Updates() const { return action == GuardAction::kGoOn || action == GuardAction::kWarn; }
};

// Judges 0-based step `step` and takes it into `state`. With kRollback `state` is as before the
// step: what comes of it is the caller's, who knows whether there is a checkpoint.
GuardVerdict JudgeStep(const GuardPolicy& policy, int64_t step, double loss, double grad_norm,
                       GuardState& state);

}  // namespace ll
