// Embedding lookup and its gradient.
//
// The gradient sums rows of dy by token in position order, whoever computes it: positions are
// grouped by token first (a stable sort), and one thread owns a token. So repeated tokens add up in
// the same order every time.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

// Adds dy [positions, width] to grad [vocab, width] fp32. order [positions]: positions sorted by
// token, stable; group_starts [groups + 1]: where each token's positions begin in `order`;
// tokens[order[i]] is the group's token. Items are groups. On a GPU items are positions, and
// whoever stands first of its token in `order` takes the whole group: group_starts is not read,
// since to count groups the host would have to wait.
struct EmbeddingBackwardParams {
  const void* dy;
  float* grad;
  const int64_t* tokens;
  const int64_t* order;
  const int64_t* group_starts;
  int64_t width;
  DType dtype;
};
LL_SIMD_KERNEL(EmbeddingBackward, EmbeddingBackwardParams)
LL_CUDA_KERNEL(EmbeddingBackward, EmbeddingBackwardParams)

}  // namespace ll
