// The forward pass of flash_attention.h in fp32, for every CPU. Unlike the AMX kernel it rounds
// nothing to bf16. Tasks, determinism, causal alignment and lse are those of flash_attention.h.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/flash_attention/flash_attention.h"

namespace ll {

struct FlashForwardFp32Params {
  FlashAttentionShape shape;
  AttentionView<const float> q, k, v;
  AttentionView<float> out;  // must not overlap with itself or an input
  AttentionView<float> lse;  // [B, H, Nq] with token_stride between queries
  // FlashForwardFp32ScratchBytes, 64-byte aligned, contents irrelevant; used by one thread at a
  // time.
  void* scratch = nullptr;
};

constexpr int64_t kFp32Strip = 32;  // queries that go through the keys together
constexpr int64_t kFp32KeyBlock = 128;

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

// The head dims the kernel takes.
constexpr bool FlashForwardFp32Takes(int64_t head_dim) {
  return head_dim >= 16 && head_dim <= 256 && head_dim % 16 == 0;
}

// Items are tasks.
LL_SIMD_KERNEL(FlashForwardFp32, FlashForwardFp32Params)

}  // namespace ll
