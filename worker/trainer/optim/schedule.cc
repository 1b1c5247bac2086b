#include "worker/trainer/optim/schedule.h"

#include <algorithm>
#include <cmath>

#include "base/field_error.h"

namespace ll {

absl::StatusOr<Schedule> Schedule::Create(absl::string_view name, double learning_rate,
                                          int64_t warmup_steps, int64_t max_steps) {
  Kind kind;
  if (name == "constant_with_warmup") {
    kind = Kind::kConstant;
  } else if (name == "linear") {
    kind = Kind::kLinear;
  } else if (name == "cosine") {
    kind = Kind::kCosine;
  } else {
    return MakeFieldError({"lr_schedule", "one of constant_with_warmup, linear, cosine", name});
  }
  return Schedule(kind, learning_rate, warmup_steps, max_steps);
}

double Schedule::At(int64_t step) const {
  if (step < warmup_steps_)
    return learning_rate_ * static_cast<double>(step) / static_cast<double>(warmup_steps_);
  if (kind_ == Kind::kConstant) return learning_rate_;
  const double decay_steps = static_cast<double>(std::max<int64_t>(1, max_steps_ - warmup_steps_));
  const double progress = static_cast<double>(step - warmup_steps_) / decay_steps;
  if (kind_ == Kind::kLinear) return learning_rate_ * std::max(0.0, 1.0 - progress);
  return learning_rate_ * std::max(0.0, 0.5 * (1.0 + std::cos(M_PI * progress)));
}

}  // namespace ll
