// Two results of the same queries over disjoint keys become one over all of them, by their
// log-sum-exps (Ring Attention: Liu et al., 2023, arXiv:2310.01889):
//
//   lse = log(exp(lse) + exp(part_lse));   out = exp(lse_before - lse) out + exp(part_lse - lse)
//   part
#pragma once

#include "kernels/common/dispatch.h"

namespace ll {

// fp32. out and part: [tokens, heads, dim], contiguous. Element (head, token) of lse lies at
// lse[head * lse_stride + token]. Items are tokens; a head of a query saw a key in both parts.
struct MergeAttentionParams {
  float* out;
  float* lse;
  const float* part;
  const float* part_lse;
  int64_t lse_stride, part_lse_stride;
  int64_t heads, dim;
};
LL_SIMD_KERNEL(MergeAttention, MergeAttentionParams)
LL_CUDA_KERNEL(MergeAttention, MergeAttentionParams)

}  // namespace ll
