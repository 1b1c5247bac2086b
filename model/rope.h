// Rotary frequencies and tables. The operations and their order are transformers'
// (modeling_rope_utils): a position of 100,000 multiplies a frequency's last bit by 100,000, so
// tables agree only where frequencies agree in every bit.
#pragma once

#include <utility>

#include <ATen/ATen.h>

#include "model/plan/config.h"

namespace ll {

struct RopeTable {
  at::Tensor inverse_frequencies;  // fp32 [head_dim / 2]
  double attention_factor = 1.0;   // cos and sin are multiplied by it (YaRN's temperature)
};

// The frequencies for a sequence of `tokens`; only dynamic NTK depends on it. It scales by the
// length of the row at hand, in training too, and never by the longest row seen before.
RopeTable MakeRopeTable(const LlamaConfig& config, int64_t tokens);

// cos and sin, fp32 [tokens, head_dim / 2] each, for positions first … first + tokens - 1. The
// angle is a product in fp32: models were trained with that rounding.
std::pair<at::Tensor, at::Tensor> CosSin(const RopeTable& table, int64_t tokens, int64_t first = 0);

}  // namespace ll
