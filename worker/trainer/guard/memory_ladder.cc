#include "worker/trainer/guard/memory_ladder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace ll {

MemoryPolicy PolicyOf(const JobSpec& spec) {
  return {spec.recompute.value_or("none"), spec.activation_offload.value_or(false)};
}

std::string PolicyText(const MemoryPolicy& policy) {
  return absl::StrCat("recompute ", policy.recompute,
                      policy.activation_offload ? ", activation_offload" : "");
}

std::vector<MemoryPolicy> MemoryRungs(bool gpu) {
  std::vector<MemoryPolicy> rungs = {{"none", false}, {"selective", false}, {"full", false}};
  if (gpu) rungs.push_back({"full", true});
  return rungs;
}

size_t RungOf(const MemoryPolicy& policy) {
  const std::vector<MemoryPolicy> rungs = MemoryRungs(/*gpu=*/true);
  const auto found = std::find(rungs.begin(), rungs.end(), policy);
  LL_CHECK(found != rungs.end());
  return static_cast<size_t>(found - rungs.begin());
}

std::optional<PolicyChange> MemoryLadder::StepDown() {
  const std::vector<MemoryPolicy> rungs = MemoryRungs(gpu_);
  const MemoryPolicy before = policy();
  const size_t next = RungOf(before) + 1;
  if (next >= rungs.size()) return std::nullopt;
  const MemoryPolicy& after = rungs[next];
  tried_.push_back(after);
  if (after.recompute != before.recompute)
    return PolicyChange{"recompute", before.recompute, after.recompute, after};
  return PolicyChange{"activation_offload", "false", "true", after};
}

std::string MemoryLadder::Tried() const {
  std::string text;
  for (const MemoryPolicy& policy : tried_)
    absl::StrAppend(&text, text.empty() ? "" : ", then ", PolicyText(policy));
  return text;
}

}  // namespace ll
