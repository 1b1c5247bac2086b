// Rotary frequencies as transformers computes them (modeling_rope_utils), without torch.
#pragma once

#include <vector>

#include "model/plan/config.h"

namespace ll {

struct RopeTable {
  std::vector<float> inverse_frequencies;  // [head_dim / 2]
  double attention_factor = 1.0;           // cos and sin are multiplied by it (YaRN)
};

// The frequencies for a sequence of `tokens` (only dynamic NTK depends on it).
RopeTable MakeRopeTable(const LlamaConfig& config, int64_t tokens);

// Fills cos, sin [tokens, head_dim / 2] row-major, for positions 0 … tokens - 1. The angle is a
// product in fp32, as transformers': models were trained with that rounding.
void FillCosSin(const RopeTable& table, int64_t tokens, float* cos, float* sin);

}  // namespace ll
