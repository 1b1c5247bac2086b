// Learning rate by step, with the semantics of transformers' get_scheduler: the factor of 0-based
// step i is i / warmup_steps while i < warmup_steps, so the very first step of a warm-up runs at
// rate 0.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

class Schedule {
 public:
  // `name`: constant_with_warmup, linear (to 0 at max_steps) or cosine (half a period to 0 at
  // max_steps). Error: any other name.
  static absl::StatusOr<Schedule> Create(absl::string_view name, double learning_rate,
                                         int64_t warmup_steps, int64_t max_steps);
  // Learning rate of 0-based step `step`.
  double At(int64_t step) const;

 private:
  enum class Kind { kConstant, kLinear, kCosine };
  Schedule(Kind kind, double learning_rate, int64_t warmup_steps, int64_t max_steps)
      : kind_(kind),
        learning_rate_(learning_rate),
        warmup_steps_(warmup_steps),
        max_steps_(max_steps) {}

  Kind kind_;
  double learning_rate_;
  int64_t warmup_steps_, max_steps_;
};

}  // namespace ll
