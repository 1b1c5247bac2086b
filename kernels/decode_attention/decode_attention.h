// Attention of one query token to all the keys of a cache: for each head
//   out = sum_t p_t v_t / sum_t p_t,  p_t = exp(scale * q k_t - m),  m = max_t scale * q k_t.
//
// Keys go in blocks whose results are merged, so that long caches keep all threads busy; the blocks
// depend on the number of keys alone, and so do the results. Sums are fp32.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

constexpr int64_t kDecodeBlockKeys = 256;
constexpr int64_t kDecodeMaxHeadDim = 256;

// Query heads [g * kv_head, (g + 1) * kv_head) with g = heads / kv_heads read KV head kv_head. Its
// token t lies at k (v) + kv_head * kv_stride + t * head_dim.
struct DecodeAttentionParams {
  const void* q;  // [heads, D]
  const void* k;
  const void* v;
  void* out;          // [heads, D]
  float* partial;     // [blocks, heads, D + 2]: sum of p v, then m, then the sum of p
  int64_t kv_stride;  // in elements
  int64_t heads, kv_heads, head_dim;
  int64_t keys;
  float scale;
  DType dtype;  // of q, k, v and out
};

inline int64_t DecodeBlocks(int64_t keys) {
  return (keys + kDecodeBlockKeys - 1) / kDecodeBlockKeys;
}

// Writes `partial`. Items are KV heads times blocks.
LL_SIMD_KERNEL(DecodeAttention, DecodeAttentionParams)
// Writes `out`. Items are heads.
LL_SIMD_KERNEL(DecodeAttentionMerge, DecodeAttentionParams)

}  // namespace ll
