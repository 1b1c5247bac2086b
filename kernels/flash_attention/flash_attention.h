// Exact attention in bfloat16 on CPUs with AMX tiles, forward and backward, without ever holding a
// score matrix:
//
//   S = scale * Q K^T,  P = softmax(S),  O = P V,  lse = log(sum(exp(S)))            one softmax
//   per query row D = rowsum(dO * O),  dS = P * (dO V^T - D),  dQ = scale * dS K,  dK = scale *
//   dS^T Q,  dV = P^T dO
//
// The tiling with an online softmax and the recomputation of P from lse follow FlashAttention-2
// (Dao, 2023, arXiv:2307.08691). Matrix products take bf16 operands (P and dS are rounded to bf16)
// and add up in fp32.
//
// Causal: query i sees keys j <= i + (k_tokens - q_tokens), so with fewer queries than keys the
// queries are the last ones of the row.
//
// Work is divided into tasks that one thread each runs from beginning to end in a fixed order. The
// division depends on the shape alone, so results are the same bit for bit for every number of
// threads and every schedule. Tasks write disjoint elements and are safe to run at the same time,
// each with a scratch of its own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/dtype.h"

namespace ll {

// Element (b, h, t, d) of a [B, H, N, D] tensor lies at data[b * batch_stride + h * head_stride + t
// * token_stride + d]. Input views may overlap; output views must not, neither with themselves nor
// with inputs.
template <typename T>
struct AttentionView {
  T* data = nullptr;
  int64_t batch_stride = 0;
  int64_t head_stride = 0;
  int64_t token_stride = 0;
};

// Query heads [g * kv_head, (g + 1) * kv_head) with g = heads / kv_heads read KV head kv_head
// (grouped-query attention).
struct FlashAttentionShape {
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t q_tokens = 0;
  int64_t k_tokens = 0;  // >= 1; >= q_tokens if causal
  int64_t head_dim = 0;
  float scale = 1;  // > 0
  bool causal = true;
};

// lse: [B, H, Nq] with token_stride between queries. Where out_fp32 has data, it is written, not
// rounded, instead of out: what is merged with other results is rounded once, at the end.
struct FlashAttentionForwardParams {
  FlashAttentionShape shape;
  AttentionView<const BFloat16> q, k, v;
  AttentionView<BFloat16> out;
  AttentionView<float> lse;
  AttentionView<float> out_fp32;
};

// dq, dk and dv are overwritten; with accumulate_dkv dk and dv are added to (read as bf16, added in
// fp32, rounded once). dk and dv hold the sum over the query heads of their KV head. fp32 views
// that have data are used instead; of dk and dv both or none, and both where dq's has.
struct FlashAttentionBackwardParams {
  FlashAttentionShape shape;
  AttentionView<const BFloat16> q, k, v, out, dout;
  AttentionView<const float> lse;
  AttentionView<BFloat16> dq, dk, dv;
  AttentionView<float> dq_fp32, dk_fp32, dv_fp32;
  bool accumulate_dkv = false;
};

// True if this CPU and operating system run the kernels and head_dim is a multiple of 16 in [16,
// 128]. The functions below may be called only then.
bool FlashAttentionSupported(int64_t head_dim);

// Number of tasks, and bytes of scratch (64-byte aligned, contents irrelevant) that a task needs.
int64_t FlashAttentionForwardTasks(const FlashAttentionShape& shape);
size_t FlashAttentionForwardScratchBytes(const FlashAttentionShape& shape);
int64_t FlashAttentionBackwardTasks(const FlashAttentionShape& shape);
size_t FlashAttentionBackwardScratchBytes(const FlashAttentionShape& shape);

// Run task `task` of [0, tasks).
void FlashAttentionForwardTask(const FlashAttentionForwardParams& params, int64_t task,
                               void* scratch);
void FlashAttentionBackwardTask(const FlashAttentionBackwardParams& params, int64_t task,
                                void* scratch);

}  // namespace ll
