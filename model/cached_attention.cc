#include "model/cached_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/flash_attention/flash_attention_torch.h"
#include "kernels/ops.h"
#include "model/attention_cuda.h"

namespace ll {
namespace {

// Up to this many queries go one by one, each reading the whole cache, which beats a mask.
constexpr int64_t kFewQueries = 4;
constexpr int64_t kDecodeHeadDim = 256;  // what DecodeAttention takes

}  // namespace

CachedAttention::CachedAttention(const LlamaConfig& config, int64_t past, int64_t n)
    : heads_(config.num_attention_heads),
      kv_heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      past_(past),
      n_(n) {}

int64_t CachedAttention::First(int64_t window) const {
  return window > 0 ? std::max<int64_t>(0, past_ - window + 1) : 0;
}

at::Tensor CachedAttention::Mask(int64_t window) const {
  const int64_t first = First(window), keys = past_ + n_ - first;
  const at::Tensor age =
      at::arange(past_, past_ + n_).unsqueeze(1) - at::arange(first, first + keys).unsqueeze(0);
  at::Tensor hidden = age.lt(0);
  if (window > 0) hidden = hidden.logical_or(age.ge(window));
  return at::zeros({1, 1, n_, keys}, at::kFloat)
      .masked_fill_(hidden, -std::numeric_limits<double>::infinity());
}

void CachedAttention::Dense(const at::Tensor& q, int64_t window, const KvCache::Layer& cache,
                            at::Tensor& out) const {
  const int64_t total = past_ + n_, first = First(window);
  const at::Tensor k = cache.k.narrow(1, first, total - first).unsqueeze(0),
                   v = cache.v.narrow(1, first, total - first).unsqueeze(0),
                   queries = q.transpose(0, 1).unsqueeze(0),
                   result = out.view({n_, heads_, head_dim_}).transpose(0, 1).unsqueeze(0);
  const bool banded = window > 0 && total > window;
  if (q.is_cuda() || (!banded && FlashAttentionUsable(queries))) {
    const at::Tensor lse = at::empty({1, heads_, n_}, q.options().dtype(at::kFloat));
    const FlashAttentionForwardCall call{queries, k, v, result, lse};
    if (q.is_cuda()) return CudaAttentionForward(call, /*causal=*/true, banded ? window : 0);
    FlashAttentionForward(call, 1.0 / std::sqrt(static_cast<double>(head_dim_)), /*causal=*/true);
    return;
  }
  // Torch's kernel aligns its causal mask to the top left: right only where nothing is in front.
  const bool plain = !banded && past_ == 0;
  at::Tensor& mask = banded ? window_mask_ : mask_;
  if (!plain && !mask.defined()) mask = Mask(banded ? window : 0);
  result.copy_(std::get<0>(at::_scaled_dot_product_flash_attention_for_cpu(
      queries, k, v, 0.0, /*is_causal=*/plain,
      plain ? std::optional<at::Tensor>() : std::optional<at::Tensor>(mask))));
}

void CachedAttention::Run(const at::Tensor& qkv, int64_t window, KvCache::Layer& cache,
                          at::Tensor& out) const {
  const int64_t q_width = heads_ * head_dim_, kv_width = kv_heads_ * head_dim_;
  const auto heads = [&](int64_t first, int64_t count) {
    return qkv.narrow(1, first, count * head_dim_).unflatten(1, {count, head_dim_});
  };
  cache.k.narrow(1, past_, n_).copy_(heads(q_width, kv_heads_).transpose(0, 1));
  cache.v.narrow(1, past_, n_).copy_(heads(q_width + kv_width, kv_heads_).transpose(0, 1));
  if (n_ > kFewQueries || head_dim_ > kDecodeHeadDim)
    return Dense(heads(0, heads_), window, cache, out);
  for (int64_t i = 0; i < n_; ++i) {
    const int64_t total = past_ + i + 1,
                  first = window > 0 ? std::max<int64_t>(0, total - window) : 0;
    at::Tensor row = out[i].view({heads_, head_dim_});
    DecodeAttention(qkv[i].narrow(0, 0, q_width).view({heads_, head_dim_}),
                    cache.k.narrow(1, first, total - first),
                    cache.v.narrow(1, first, total - first), row);
  }
}

}  // namespace ll
