#include "model/sliding_window.h"

#include <algorithm>
#include <limits>

#include "model/attention_cuda.h"

namespace ll {
namespace {

// Rows of a block. More rows mean fewer calls and, beside a window of thousands, little more work.
constexpr int64_t kBlockRows = 256;

// fp32 [rows, rows + window - 1]: 0 where query i sees key j, -inf elsewhere. Key 0 is the first
// that query 0 sees.
at::Tensor Band(int64_t rows, int64_t window) {
  const at::Tensor age =
      at::arange(rows).unsqueeze(1) + (window - 1) - at::arange(rows + window - 1).unsqueeze(0);
  return at::zeros(age.sizes(), at::kFloat)
      .masked_fill_(age.lt(0).logical_or(age.ge(window)), -std::numeric_limits<double>::infinity());
}

// Calls visit(q_begin, q_rows, k_begin, k_rows, mask) for each block of queries.
template <typename Visit>
void ForEachBlock(int64_t tokens, int64_t window, Visit visit) {
  const int64_t block = std::min({kBlockRows, window, tokens});
  const at::Tensor band = Band(block, window);
  for (int64_t q = 0; q < tokens; q += block) {
    const int64_t rows = std::min(block, tokens - q), first = q - window + 1,
                  k = std::max<int64_t>(0, first), k_rows = q + rows - k;
    visit(q, rows, k, k_rows,
          band.narrow(0, 0, rows)
              .narrow(1, k - first, k_rows)
              .contiguous()
              .view({1, 1, rows, k_rows}));
  }
}

}  // namespace

void SlidingWindowForward(const FlashAttentionForwardCall& c, int64_t window) {
  if (AttendsOnGpu(c.q.device())) return CudaAttentionForward(c, /*causal=*/true, window);
  ForEachBlock(c.q.size(2), window,
               [&](int64_t q, int64_t rows, int64_t k, int64_t k_rows, const at::Tensor& mask) {
                 const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
                     c.q.narrow(2, q, rows), c.k.narrow(2, k, k_rows), c.v.narrow(2, k, k_rows),
                     0.0,
                     /*is_causal=*/false, mask);
                 c.out.narrow(2, q, rows).copy_(out);
                 c.lse.narrow(2, q, rows).copy_(lse);
               });
}

void SlidingWindowBackward(const FlashAttentionBackwardCall& c, int64_t window) {
  if (AttendsOnGpu(c.q.device())) return CudaAttentionBackward(c, /*causal=*/true, window);
  at::Tensor dk_sum = at::zeros(c.dk.sizes(), at::kFloat), dv_sum = at::zeros_like(dk_sum);
  ForEachBlock(c.q.size(2), window,
               [&](int64_t q, int64_t rows, int64_t k, int64_t k_rows, const at::Tensor& mask) {
                 const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
                     c.dout.narrow(2, q, rows), c.q.narrow(2, q, rows), c.k.narrow(2, k, k_rows),
                     c.v.narrow(2, k, k_rows), c.out.narrow(2, q, rows), c.lse.narrow(2, q, rows),
                     0.0,
                     /*is_causal=*/false, mask);
                 c.dq.narrow(2, q, rows).copy_(dq);
                 dk_sum.narrow(2, k, k_rows).add_(dk);
                 dv_sum.narrow(2, k, k_rows).add_(dv);
               });
  c.accumulate_dkv ? c.dk.add_(dk_sum) : c.dk.copy_(dk_sum);
  c.accumulate_dkv ? c.dv.add_(dv_sum) : c.dv.copy_(dv_sum);
}

}  // namespace ll
