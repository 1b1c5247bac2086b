// Attention calls on views of row tensors: what shifted_attention.cc and shard_attention.cc share.
#pragma once

#include <vector>

#include <ATen/ATen.h>

#include "kernels/flash_attention/flash_attention_torch.h"
#include "model/segments.h"

namespace ll {

// Heads [first, first + heads) of a [N, …] row tensor, in the segments of `batch`: [count, heads,
// length, D].
at::Tensor SegmentView(const at::Tensor& rows, int64_t first, int64_t heads, int64_t head_dim,
                       const SegmentBatch& batch);
// The same for log-sum-exp [H, N]: [count, heads, length].
at::Tensor SegmentLse(const at::Tensor& lse, int64_t first, int64_t heads,
                      const SegmentBatch& batch);

// Products of a pair of query and key, of D elements each: q k^T and p v; backward again q k^T,
// dout v^T and the three gradients.
inline constexpr double kForwardProducts = 2, kBackwardProducts = 5;

// Rows of zeros in front of the queries, [B, H, Nq, …] to [B, H, rows, …]: for kernels that align
// causal masks at the top left. Their results are dropped; going back they carry no gradient.
at::Tensor WithZeroQueriesInFront(const at::Tensor& t, int64_t rows);

// Calls scaled by 1/sqrt(D), with the project's kernel where it can run and torch's elsewhere;
// types as there (flash_attention_torch.h): results of bf16 may be wanted in fp32, which are not
// rounded on a CPU. Causal: with fewer queries than keys the queries are the last ones. Backward
// calls of one list write disjoint elements of dk and dv.
void RunAttentionForward(const std::vector<FlashAttentionForwardCall>& calls, bool causal = true);
void RunAttentionBackward(const std::vector<FlashAttentionBackwardCall>& calls, bool causal = true);

}  // namespace ll
