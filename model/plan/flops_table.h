// LongLoRA's table of FLOPs by context (Chen et al. 2023, "FLOPs breakdown"): what `ll-trainer
// profile flops` prints. Pure functions, thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/plan/time_plan.h"
#include "nlohmann/json.hpp"

namespace ll {

// One context length: the forward pass of one sequence in the table's convention (ForwardFlops).
struct FlopsRow {
  int64_t context_length = 0;
  int64_t group_tokens = 0;  // floor(group_ratio * context_length)
  FlopCount full, s2;
  // Share of attention in the total, 0 to 1.
  double FullShare() const { return full.attention / full.total(); }
  double S2Share() const { return s2.attention / s2.total(); }
};

// Errors: no context, one that is too short for groups of at least one token.
absl::StatusOr<std::vector<FlopsRow>> FlopsTable(const LlamaConfig& config,
                                                 const std::vector<int64_t>& contexts,
                                                 double group_ratio);

// Lines of right-aligned columns, TFLOPs and percent, for people.
std::string FlopsTableText(const std::vector<FlopsRow>& rows);
// A list of {"context_length", "group_tokens", "full": {"attention", …, "total",
// "attention_share"}, "s2": {…}}, in FLOPs.
nlohmann::ordered_json FlopsTableJson(const std::vector<FlopsRow>& rows);

}  // namespace ll
