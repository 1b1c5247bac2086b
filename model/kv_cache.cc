#include "model/kv_cache.h"

#include <algorithm>

#include "base/check.h"

namespace ll {

KvCache::KvCache(const LlamaConfig& config, const at::TensorOptions& options)
    : kv_heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      options_(options),
      layers_(static_cast<size_t>(config.num_hidden_layers)) {}

int64_t KvCache::BytesPerToken(const LlamaConfig& config, at::ScalarType dtype) {
  return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim *
         static_cast<int64_t>(c10::elementSize(dtype));
}

void KvCache::Reserve(int64_t tokens) {
  if (tokens <= capacity_) return;
  constexpr int64_t kFirstTokens = 64;
  const int64_t capacity = std::max({tokens, 2 * capacity_, kFirstTokens});
  for (Layer& layer : layers_) {
    for (at::Tensor* t : {&layer.k, &layer.v}) {
      at::Tensor grown = at::empty({kv_heads_, capacity, head_dim_}, options_);
      // Where growing stopped half-way for lack of memory, some layers have the new size already.
      if (t->defined()) grown.narrow(1, 0, tokens_).copy_(t->narrow(1, 0, tokens_));
      *t = grown;
    }
  }
  capacity_ = capacity;
}

void KvCache::Truncate(int64_t tokens) {
  LL_CHECK(tokens >= 0 && tokens <= tokens_);
  tokens_ = tokens;
}

void KvCache::Commit(int64_t count) {
  LL_CHECK(count >= 0 && tokens_ + count <= capacity_);
  tokens_ += count;
}

}  // namespace ll
