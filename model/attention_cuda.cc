#include "model/attention_cuda.h"

#include <tuple>

#include "model/attention_calls.h"

namespace ll {
namespace {

// [B, H, N, D] to FlashAttention-2's [B, N, H, D] and back.
at::Tensor Swapped(const at::Tensor& t) { return t.transpose(1, 2); }

// Without dropout nobody reads the generator's state.
at::Tensor NoRandomState(const at::Tensor& like) {
  return at::empty({2}, like.options().dtype(at::kLong));
}

void Put(const at::Tensor& from, const at::Tensor& to, bool add) {
  add ? to.add_(from) : to.copy_(from);
}

// FlashAttention-2's window_size_left and window_size_right; both absent: no window.
struct Window {
  std::optional<int64_t> left, right;
};
Window WindowOf(int64_t window) {
  if (window == 0) return {};
  return {window - 1, 0};
}

void FlashForward(const FlashAttentionForwardCall& c, bool causal, Window window) {
  const auto [out, lse, random, unused, debug] = at::_flash_attention_forward(
      Swapped(c.q), Swapped(c.k), Swapped(c.v), std::nullopt, std::nullopt, c.q.size(2),
      c.k.size(2), 0.0, causal, /*return_debug_mask=*/false, std::nullopt, window.left,
      window.right);
  c.out.copy_(Swapped(out));
  c.lse.copy_(lse);
}

void FlashBackward(const FlashAttentionBackwardCall& c, bool causal, Window window) {
  const at::Tensor random = NoRandomState(c.q);
  const auto [dq, dk, dv] = at::_flash_attention_backward(
      Swapped(c.dout), Swapped(c.q), Swapped(c.k), Swapped(c.v), Swapped(c.out), c.lse.contiguous(),
      {}, {}, c.q.size(2), c.k.size(2), 0.0, causal, random, random, std::nullopt, window.left,
      window.right);
  c.dq.copy_(Swapped(dq));
  Put(Swapped(dk), c.dk, c.accumulate_dkv);
  Put(Swapped(dv), c.dv, c.accumulate_dkv);
}

// Every query head with its own copy of its keys.
at::Tensor Repeated(const at::Tensor& kv, int64_t heads) {
  return kv.size(1) == heads ? kv : kv.repeat_interleave(heads / kv.size(1), 1);
}
at::Tensor Summed(const at::Tensor& d, int64_t kv_heads) {
  if (d.size(1) == kv_heads) return d;
  return d.unflatten(1, {kv_heads, d.size(1) / kv_heads}).sum(2);
}

// The kernel pads the rows of its log-sum-exp to multiples of 32.
int64_t LseRows(int64_t queries) { return (queries + 31) / 32 * 32; }

void EfficientForward(const FlashAttentionForwardCall& c, bool causal) {
  const int64_t queries = c.q.size(2), heads = c.q.size(1);
  const int64_t rows = causal ? c.k.size(2) : queries, front = rows - queries;
  const auto [out, lse, seed, offset] = at::_scaled_dot_product_efficient_attention(
      WithZeroQueriesInFront(c.q, rows), Repeated(c.k, heads), Repeated(c.v, heads), std::nullopt,
      /*compute_log_sumexp=*/true, 0.0, causal);
  c.out.copy_(out.narrow(2, front, queries));
  c.lse.copy_(lse.narrow(2, front, queries));
}

void EfficientBackward(const FlashAttentionBackwardCall& c, bool causal) {
  const int64_t queries = c.q.size(2), heads = c.q.size(1), kv_heads = c.k.size(1);
  const int64_t rows = causal ? c.k.size(2) : queries, front = rows - queries;
  at::Tensor lse = at::zeros({c.q.size(0), heads, LseRows(rows)}, c.lse.options());
  lse.narrow(2, front, queries).copy_(c.lse);
  const at::Tensor random = NoRandomState(c.q);
  const auto r = at::_scaled_dot_product_efficient_attention_backward(
      WithZeroQueriesInFront(c.dout, rows), WithZeroQueriesInFront(c.q, rows), Repeated(c.k, heads),
      Repeated(c.v, heads), {}, WithZeroQueriesInFront(c.out, rows), lse, random[0], random[1], 0.0,
      {true, true, true, false}, causal);
  c.dq.copy_(std::get<0>(r).narrow(2, front, queries));
  Put(Summed(std::get<1>(r), kv_heads), c.dk, c.accumulate_dkv);
  Put(Summed(std::get<2>(r), kv_heads), c.dv, c.accumulate_dkv);
}

}  // namespace

void CudaAttentionForward(const FlashAttentionForwardCall& call, bool causal, int64_t window) {
  if (call.q.numel() == 0) return;
  if (call.q.scalar_type() == at::kBFloat16) return FlashForward(call, causal, WindowOf(window));
  TORCH_CHECK(window == 0, "sliding windows on a GPU need bf16");
  EfficientForward(call, causal);
}

void CudaAttentionBackward(const FlashAttentionBackwardCall& call, bool causal, int64_t window) {
  if (call.q.numel() == 0) return;
  if (call.q.scalar_type() == at::kBFloat16) return FlashBackward(call, causal, WindowOf(window));
  TORCH_CHECK(window == 0, "sliding windows on a GPU need bf16");
  EfficientBackward(call, causal);
}

}  // namespace ll
