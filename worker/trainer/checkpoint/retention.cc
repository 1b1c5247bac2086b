#include "worker/trainer/checkpoint/retention.h"

#include <algorithm>

namespace ll {

bool KeptForEver(const Retention& retention, int64_t step) {
  return retention.keep_every > 0 && step % retention.keep_every == 0;
}

std::vector<int64_t> StepsToRemove(const Retention& retention, std::vector<int64_t> steps) {
  std::vector<int64_t> doomed;
  if (retention.total_limit <= 0) return doomed;
  std::sort(steps.rbegin(), steps.rend());
  for (size_t i = static_cast<size_t>(retention.total_limit); i < steps.size(); ++i) {
    if (!KeptForEver(retention, steps[i])) doomed.push_back(steps[i]);
  }
  return doomed;
}

}  // namespace ll
