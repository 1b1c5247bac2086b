// Full causal attention of new tokens to a cache of keys and values: what generation needs beside
// training's shifted_attention.h.
#pragma once

#include <ATen/ATen.h>

#include "model/kv_cache.h"
#include "model/plan/config.h"

namespace ll {

// For n new tokens behind `past` ones; made once for all layers. Not thread-safe.
class CachedAttention {
 public:
  CachedAttention(const LlamaConfig& config, int64_t past, int64_t n);

  // Puts the keys and values of qkv [n, (H + 2K) D] (as AttentionForward has it, q and k rotated)
  // behind the first `past` tokens of `cache`, which has room, and writes out [n, H D], the
  // attention of the queries to all past + n tokens; with `window` > 0 to the `window` that end
  // with the query's own.
  void Run(const at::Tensor& qkv, int64_t window, KvCache::Layer& cache, at::Tensor& out) const;

 private:
  // The first token that any of the queries sees.
  int64_t First(int64_t window) const;
  // fp32 [1, 1, n, T - First]: 0 where a query sees a key, -inf elsewhere.
  at::Tensor Mask(int64_t window) const;
  void Dense(const at::Tensor& q, int64_t window, const KvCache::Layer& cache,
             at::Tensor& out) const;

  int64_t heads_, kv_heads_, head_dim_, past_, n_;
  mutable at::Tensor mask_, window_mask_;  // made when first used; all windows of a model are alike
};

}  // namespace ll
