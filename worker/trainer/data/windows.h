// Which windows of a token file perplexity is measured on, and which tokens each one scores.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace ll {

// kOfficial: LongLoRA's eval.py, whole windows at range(0, T - N, stride) without the last one,
// ceil((T - N) / stride) - 1 of them, each scoring all its N - 1 predictions.
// kExact: Hugging Face's strided recipe. Windows at 0, stride, … until one reaches the file's end
// (the last may be shorter); each scores only what the ones before have not, its newest `stride`
// tokens, so that every token but the first counts once. A stride of N or more counts as N; the
// first token of each window then has no prediction.
enum class WindowMode { kOfficial, kExact };

struct Window {
  int64_t begin = 0, end = 0;  // tokens of the file
  int64_t first_scored = 0;    // tokens [first_scored, end) are scored; > begin
  bool operator==(const Window&) const = default;
};

// The windows of `seq_len` tokens in a file of `tokens`. InvalidArgument when there is none.
absl::StatusOr<std::vector<Window>> PlanWindows(int64_t tokens, int64_t seq_len, int64_t stride,
                                                WindowMode mode);

}  // namespace ll
