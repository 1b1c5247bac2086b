// The forward pass of flash_attention.h in fp32, for every CPU: unlike the AMX kernel it rounds
// nothing to bf16 on the way. Keys, values and queries may be bf16, which are widened as they are
// read, and so may the result, which is rounded once. Tasks, determinism, causal alignment and lse
// are those of flash_attention.h.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/flash_attention/flash_attention.h"
#include "kernels/flash_attention/fp32_shape.h"

namespace ll {

struct FlashForwardFp32Params {
  FlashAttentionShape shape;
  // Of q, k and v; of out, which is bf16 only where they are.
  DType in_type = DType::kFloat32, out_type = DType::kFloat32;
  AttentionView<const void> q, k, v;
  AttentionView<void> out;   // must not overlap with itself or an input
  AttentionView<float> lse;  // [B, H, Nq] with token_stride between queries
  // FlashForwardFp32ScratchBytes, 64-byte aligned, contents irrelevant; used by one thread at a
  // time.
  void* scratch = nullptr;
};

// Queries of one task, a multiple of kFp32Strip: with the heads of its KV head so many that copying
// a block of keys and values costs little, and so few that their state stays in a core's cache.
constexpr int64_t Fp32TaskQueries(const FlashAttentionShape& s) {
  constexpr int64_t kStateBytes = 1 << 20, kMostStrips = 16;
  const int64_t strip_bytes = 2 * s.head_dim * kFp32Strip * 4;
  const int64_t strips = kStateBytes / (strip_bytes * (s.heads / s.kv_heads));
  return kFp32Strip * (strips < 1 ? 1 : strips > kMostStrips ? kMostStrips : strips);
}

constexpr int64_t FlashForwardFp32Tasks(const FlashAttentionShape& s) {
  const int64_t queries = Fp32TaskQueries(s);
  return s.batch * s.kv_heads * ((s.q_tokens + queries - 1) / queries);
}

// A block of keys, values and scores, and the queries, sums and state of a task's strips.
constexpr size_t FlashForwardFp32ScratchBytes(const FlashAttentionShape& s) {
  const int64_t strips = Fp32TaskQueries(s) / kFp32Strip * (s.heads / s.kv_heads);
  return sizeof(float) * (kFp32KeyBlock * (2 * s.head_dim + kFp32Strip) +
                          strips * kFp32Strip * (2 * s.head_dim + 2));
}

// Items are tasks.
LL_SIMD_KERNEL(FlashForwardFp32, FlashForwardFp32Params)

}  // namespace ll
