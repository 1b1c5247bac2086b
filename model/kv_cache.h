// The keys and values of tokens that have passed through a model, so that what follows them need
// not compute them again (Llama::Extend). The sequence's tokens are not stored; a Generator
// (generation/generator.h) keeps them beside it.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/ATen.h>

#include "model/plan/config.h"

namespace ll {

// Owns its memory: 2 * layers * KV heads * head_dim elements a token. It doubles when it is full;
// then, one layer at a time, the old and the new buffer exist together. Models with a sliding
// window keep all tokens too. Not thread-safe. Reserve and the growth in Llama::Extend throw what
// torch throws for lack of memory; Llama::Extend turns it into a status.
class KvCache {
 public:
  // K and V of a layer, [KV heads, capacity, D] each, keys rotated.
  struct Layer {
    at::Tensor k, v;
  };

  // Empty. `options` are the model's ModelOptions::compute(); a dtype alone means the CPU.
  KvCache(const LlamaConfig& config, const at::TensorOptions& options);

  static int64_t BytesPerToken(const LlamaConfig& config, at::ScalarType dtype);

  int64_t tokens() const { return tokens_; }
  int64_t capacity() const { return capacity_; }
  // Room for `tokens` in all, exactly where that is more than double of what there is.
  void Reserve(int64_t tokens);
  // Forgets all but the first `tokens`; no more than there are. The memory stays.
  void Truncate(int64_t tokens);

  // For Llama::Extend: a layer's buffers, and that all layers have written `count` more tokens.
  Layer& layer(int64_t l) { return layers_[static_cast<size_t>(l)]; }
  void Commit(int64_t count);

 private:
  int64_t kv_heads_, head_dim_;
  at::TensorOptions options_;
  int64_t tokens_ = 0, capacity_ = 0;
  std::vector<Layer> layers_;
};

}  // namespace ll
