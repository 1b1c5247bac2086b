#include "kernels/decode_attention/decode_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/torch_adapter.h"
#include "kernels/ops.h"

namespace ll {

void DecodeAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     at::Tensor& out) {
  CheckOperand(q);
  CheckOperand(out);
  const int64_t heads = q.size(0), dim = q.size(1), kv_heads = k.size(0), keys = k.size(1);
  LL_CHECK(keys >= 1 && kv_heads >= 1 && heads % kv_heads == 0 && dim <= kDecodeMaxHeadDim);
  LL_CHECK(k.sizes() == v.sizes() && k.strides() == v.strides() && k.size(2) == dim &&
           k.stride(1) == dim && k.stride(2) == 1 && out.sizes() == q.sizes());
  LL_CHECK(k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type() &&
           out.scalar_type() == q.scalar_type());
  if (q.is_cuda()) {
    out.copy_(at::scaled_dot_product_attention(q.view({1, heads, 1, dim}), k.unsqueeze(0),
                                               v.unsqueeze(0), std::nullopt, 0.0,
                                               /*is_causal=*/false, std::nullopt,
                                               /*enable_gqa=*/heads != kv_heads)
                  .view({heads, dim}));
    return;
  }
  const int64_t blocks = DecodeBlocks(keys);
  thread_local std::vector<float> partial;
  partial.resize(static_cast<size_t>(blocks * heads * (dim + 2)));
  const DecodeAttentionParams p{q.const_data_ptr(),
                                k.const_data_ptr(),
                                v.const_data_ptr(),
                                out.data_ptr(),
                                partial.data(),
                                k.stride(0),
                                heads,
                                kv_heads,
                                dim,
                                keys,
                                static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim))),
                                DTypeOf(q)};
  const int64_t keys_an_item = std::min(keys, kDecodeBlockKeys);
  at::parallel_for(0, kv_heads * blocks, Grain(2 * keys_an_item * dim * (heads / kv_heads)),
                   [&](int64_t b, int64_t e) { DecodeAttention(p, b, e); });
  at::parallel_for(0, heads, Grain(blocks * dim),
                   [&](int64_t b, int64_t e) { DecodeAttentionMerge(p, b, e); });
}

}  // namespace ll
