#include "model/attention_calls.h"

#include <cmath>

#include "model/attention_cuda.h"

namespace ll {
namespace {

double ScaleOf(const at::Tensor& q) { return 1.0 / std::sqrt(static_cast<double>(q.size(3))); }

// Where the result is wanted in fp32, not rounded, torch's kernel must be given fp32.
at::Tensor Widened(const at::Tensor& t, const at::Tensor& result) {
  return result.scalar_type() == at::kFloat ? t.to(at::kFloat) : t;
}

void TorchForward(FlashAttentionForwardCall c, bool causal) {
  for (at::Tensor* t : {&c.q, &c.k, &c.v}) *t = Widened(*t, c.out);
  const int64_t queries = c.q.size(2), keys = causal ? c.k.size(2) : queries;
  const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
      WithZeroQueriesInFront(c.q, keys), c.k, c.v, 0.0, causal);
  c.out.copy_(out.narrow(2, keys - queries, queries));
  c.lse.copy_(lse.narrow(2, keys - queries, queries));
}

void TorchBackward(FlashAttentionBackwardCall c, bool causal) {
  for (at::Tensor* t : {&c.q, &c.k, &c.v, &c.out, &c.dout}) *t = Widened(*t, c.dk);
  const int64_t queries = c.q.size(2), keys = causal ? c.k.size(2) : queries;
  const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      WithZeroQueriesInFront(c.dout, keys), WithZeroQueriesInFront(c.q, keys), c.k, c.v,
      WithZeroQueriesInFront(c.out, keys), WithZeroQueriesInFront(c.lse, keys), 0.0, causal);
  c.dq.copy_(dq.narrow(2, keys - queries, queries));
  c.accumulate_dkv ? c.dk.add_(dk) : c.dk.copy_(dk);
  c.accumulate_dkv ? c.dv.add_(dv) : c.dv.copy_(dv);
}

}  // namespace

at::Tensor WithZeroQueriesInFront(const at::Tensor& t, int64_t rows) {
  const int64_t missing = rows - t.size(2);
  if (missing == 0) return t;
  std::vector<int64_t> shape = t.sizes().vec();
  shape[2] = missing;
  return at::cat({at::zeros(shape, t.options()), t}, 2);
}

at::Tensor SegmentView(const at::Tensor& rows, int64_t first, int64_t heads, int64_t head_dim,
                       const SegmentBatch& batch) {
  const int64_t ld = rows.stride(0);
  return rows.as_strided({batch.count, heads, batch.length, head_dim},
                         {batch.stride * ld, head_dim, ld, 1},
                         rows.storage_offset() + batch.begin * ld + first * head_dim);
}

at::Tensor SegmentLse(const at::Tensor& lse, int64_t first, int64_t heads,
                      const SegmentBatch& batch) {
  const int64_t n = lse.stride(0);
  return lse.as_strided({batch.count, heads, batch.length}, {batch.stride, n, 1},
                        lse.storage_offset() + first * n + batch.begin);
}

void RunAttentionForward(const std::vector<FlashAttentionForwardCall>& calls, bool causal) {
  if (calls.empty()) return;
  const bool on_gpu = AttendsOnGpu(calls[0].q.device());
  if (!on_gpu && FlashAttentionUsable(calls[0].q))
    return FlashAttentionForward(calls, ScaleOf(calls[0].q), causal);
  for (const FlashAttentionForwardCall& c : calls)
    on_gpu ? CudaAttentionForward(c, causal) : TorchForward(c, causal);
}

void RunAttentionBackward(const std::vector<FlashAttentionBackwardCall>& calls, bool causal) {
  if (calls.empty()) return;
  const bool on_gpu = AttendsOnGpu(calls[0].q.device());
  if (!on_gpu && FlashAttentionUsable(calls[0].q))
    return FlashAttentionBackward(calls, ScaleOf(calls[0].q), causal);
  for (const FlashAttentionBackwardCall& c : calls)
    on_gpu ? CudaAttentionBackward(c, causal) : TorchBackward(c, causal);
}

}  // namespace ll
