// Which windows of a token file perplexity is measured on.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace ll {

// kOfficial: LongLoRA's eval.py, starts range(0, T - N, stride) without the last one, ceil((T - N)
// / stride) - 1 windows. kExact: every start 0, stride, 2 stride, … whose window lies in the file.
enum class WindowMode { kOfficial, kExact };

// Starts of windows of `seq_len` tokens in a file of `tokens`. InvalidArgument when there is none.
absl::StatusOr<std::vector<int64_t>> WindowStarts(int64_t tokens, int64_t seq_len, int64_t stride,
                                                  WindowMode mode);

}  // namespace ll
