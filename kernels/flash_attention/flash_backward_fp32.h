// The backward pass of flash_attention.h in fp32, for every CPU: unlike the AMX kernel it rounds
// nothing to bf16 on the way. What it reads may be bf16 and is widened as it is read; gradients are
// rounded once where they are bf16. Tasks, determinism and causal alignment are those of
// flash_attention.h.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/flash_attention/flash_attention.h"
#include "kernels/flash_attention/fp32_shape.h"

namespace ll {

struct FlashBackwardFp32Params {
  FlashAttentionShape shape;
  // Of q, k, v, out and dout; of dq; of dk and dv. Gradients are bf16 only where the others are, dk
  // and dv only where dq is.
  DType in_type = DType::kFloat32, dq_type = DType::kFloat32, dkv_type = DType::kFloat32;
  AttentionView<const void> q, k, v, out, dout;
  AttentionView<const float> lse;
  // Must not overlap with themselves or an input. With accumulate_dkv dk and dv are added to.
  AttentionView<void> dq, dk, dv;
  bool accumulate_dkv = false;
  // FlashBackwardFp32ScratchBytes, 64-byte aligned, contents irrelevant; used by one thread at a
  // time.
  void* scratch = nullptr;
};

// Elements of a row of dk, dv, q and dout in scratch: whole pairs of the widest vectors.
constexpr int64_t Fp32PaddedDim(int64_t head_dim) { return (head_dim + 31) / 32 * 32; }

// A strip's queries and their gradients: q and dout as they lie and transposed, dq transposed, lse,
// delta.
constexpr int64_t Fp32BackwardStripFloats(int64_t head_dim) {
  return kFp32Strip * (2 * Fp32PaddedDim(head_dim) + 3 * head_dim + 2);
}

// Queries that meet a block of keys together, a multiple of kFp32Strip: with the heads of their KV
// head so many that widening the block costs little, and so few that they stay in a core's cache.
constexpr int64_t Fp32BackwardQueries(const FlashAttentionShape& s) {
  constexpr int64_t kStateBytes = 512 << 10, kMostStrips = 16;
  const int64_t strip_bytes = 4 * Fp32BackwardStripFloats(s.head_dim);
  const int64_t strips = kStateBytes / (strip_bytes * (s.heads / s.kv_heads));
  return kFp32Strip * (strips < 1 ? 1 : strips > kMostStrips ? kMostStrips : strips);
}

// A KV head each: its dk and dv are the sums over all its queries.
constexpr int64_t FlashBackwardFp32Tasks(const FlashAttentionShape& s) {
  return s.batch * s.kv_heads;
}

// dk and dv of all keys; a block of keys, values, weights and their gradients; the strips.
constexpr size_t FlashBackwardFp32ScratchBytes(const FlashAttentionShape& s) {
  const int64_t keys = (s.k_tokens + 7) / 8 * 8,
                strips = Fp32BackwardQueries(s) / kFp32Strip * (s.heads / s.kv_heads);
  return sizeof(float) *
         (2 * keys * Fp32PaddedDim(s.head_dim) + kFp32KeyBlock * (2 * s.head_dim + 2 * kFp32Strip) +
          strips * Fp32BackwardStripFloats(s.head_dim));
}

// Items are tasks.
LL_SIMD_KERNEL(FlashBackwardFp32, FlashBackwardFp32Params)

}  // namespace ll
