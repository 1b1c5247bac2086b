// The next token from logits. Names, order and meaning of the options are transformers'
// (generation/logits_process.py): repetition penalty, then temperature, top_k, top_p. Pure
// functions on plain memory.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace ll {

struct SamplingOptions {
  double temperature = 0;  // 0: the likeliest token (greedy); then top_k, top_p are not used
  int64_t top_k = 0;       // only the k likeliest, and those as likely as the kth; 0: all
  double top_p = 1;        // the fewest likeliest that together have at least this probability
  double repetition_penalty = 1;  // > 1: tokens that occurred become less likely
  uint64_t seed = 0;

  bool greedy() const { return temperature == 0; }
};

// InvalidArgument naming the option.
absl::Status CheckSampling(const SamplingOptions& options);

// Changes the logits as the options say; tokens that may not be drawn become -infinity. `context`
// holds the ids so far, prompt and answer, all within the logits; one that occurs often counts
// once. At least one token stays.
void ProcessLogits(const SamplingOptions& options, absl::Span<const int32_t> context,
                   absl::Span<float> logits);

// Draws from softmax of processed logits; greedy takes the largest, of equals the first. `draw`
// counts the draws made with this seed: the same seed, draw and logits give the same token. -1
// where a logit is NaN or all are -infinity.
int32_t DrawToken(const SamplingOptions& options, uint64_t draw, absl::Span<const float> logits);

}  // namespace ll
