#include "kernels/flash_attention/flash_attention_torch.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "kernels/flash_attention/flash_attention.h"
#include "kernels/flash_attention/flash_forward_fp32.h"

namespace ll {
namespace {

template <typename T>
AttentionView<T> ViewOf(const at::Tensor& t, at::IntArrayRef sizes, at::ScalarType type) {
  LL_CHECK(t.device().is_cpu() && t.scalar_type() == type && t.sizes() == sizes);
  LL_CHECK(sizes.size() == 3 || t.stride(3) == 1);
  return {reinterpret_cast<T*>(t.data_ptr()), t.stride(0), t.stride(1), t.stride(2)};
}

FlashAttentionShape ShapeOf(const at::Tensor& q, const at::Tensor& k, double scale, bool causal) {
  LL_CHECK(q.dim() == 4 && k.dim() == 4);
  const FlashAttentionShape shape{.batch = q.size(0),
                                  .heads = q.size(1),
                                  .kv_heads = k.size(1),
                                  .q_tokens = q.size(2),
                                  .k_tokens = k.size(2),
                                  .head_dim = q.size(3),
                                  .scale = static_cast<float>(scale),
                                  .causal = causal};
  LL_CHECK(shape.q_tokens >= 0 && shape.k_tokens >= 1 && shape.scale > 0);
  LL_CHECK(shape.kv_heads >= 1 && shape.heads >= shape.kv_heads);
  LL_CHECK(shape.heads % shape.kv_heads == 0);
  LL_CHECK(!causal || shape.q_tokens <= shape.k_tokens);
  return shape;
}

// Every call's tensor sizes.
struct Sizes {
  explicit Sizes(const FlashAttentionShape& s)
      : q{s.batch, s.heads, s.q_tokens, s.head_dim},
        k{s.batch, s.kv_heads, s.k_tokens, s.head_dim},
        lse{s.batch, s.heads, s.q_tokens} {}
  std::vector<int64_t> q, k, lse;
};

// A buffer per thread that only grows, so that a training step does not fault its pages in anew at
// every layer.
void* ThreadScratch(size_t size_bytes) {
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<void, Free> buffer;
  thread_local size_t capacity_bytes = 0;
  if (size_bytes > capacity_bytes) {
    buffer.reset();
    const size_t rounded = (size_bytes + 4095) / 4096 * 4096;
    buffer.reset(std::aligned_alloc(4096, rounded));
    LL_CHECK_MSG(buffer != nullptr, "out of memory for attention scratch");
    capacity_bytes = rounded;
  }
  return buffer.get();
}

// Runs the tasks of all items. Threads take the next task when they are free; what a task computes
// does not depend on who runs it or when.
template <typename Params, typename Run>
void RunTasks(const std::vector<Params>& items, int64_t (*tasks)(const FlashAttentionShape&),
              size_t (*scratch_bytes)(const FlashAttentionShape&), const Run& run) {
  std::vector<int64_t> ends;
  size_t bytes = 0;
  for (const Params& item : items) {
    ends.push_back((ends.empty() ? 0 : ends.back()) + tasks(item.shape));
    bytes = std::max(bytes, scratch_bytes(item.shape));
  }
  if (ends.empty() || ends.back() == 0) return;
  std::atomic<int64_t> next{0};
  const int64_t workers = std::min<int64_t>(at::get_num_threads(), ends.back());
  at::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    void* scratch = ThreadScratch(bytes);
    for (int64_t task = next++; task < ends.back(); task = next++) {
      const size_t i = std::upper_bound(ends.begin(), ends.end(), task) - ends.begin();
      run(items[i], task - (i == 0 ? 0 : ends[i - 1]), scratch);
    }
  });
}

void ForwardInFp32(at::ArrayRef<FlashAttentionForwardCall> calls, double scale, bool causal) {
  std::vector<FlashForwardFp32Params> items;
  for (const FlashAttentionForwardCall& c : calls) {
    const FlashAttentionShape shape = ShapeOf(c.q, c.k, scale, causal);
    LL_CHECK(FlashForwardFp32Takes(shape.head_dim));
    const Sizes sizes(shape);
    items.push_back({.shape = shape,
                     .q = ViewOf<const float>(c.q, sizes.q, at::kFloat),
                     .k = ViewOf<const float>(c.k, sizes.k, at::kFloat),
                     .v = ViewOf<const float>(c.v, sizes.k, at::kFloat),
                     .out = ViewOf<float>(c.out, sizes.q, at::kFloat),
                     .lse = ViewOf<float>(c.lse, sizes.lse, at::kFloat)});
  }
  RunTasks(items, FlashForwardFp32Tasks, FlashForwardFp32ScratchBytes,
           [](FlashForwardFp32Params p, int64_t task, void* scratch) {
             p.scratch = scratch;
             FlashForwardFp32(p, task, task + 1);
           });
}

}  // namespace

bool FlashAttentionForwardUsable(const at::Tensor& q) {
  if (FlashAttentionBackwardUsable(q)) return true;
  // Without AVX-512 torch's kernel is the faster one (docs/performance.md).
  return CpuIsa() == Isa::kAvx512 && q.device().is_cpu() && q.scalar_type() == at::kFloat &&
         q.dim() > 0 && FlashForwardFp32Takes(q.size(-1));
}

bool FlashAttentionBackwardUsable(const at::Tensor& q) {
  return q.device().is_cpu() && q.scalar_type() == at::kBFloat16 && q.dim() > 0 &&
         FlashAttentionSupported(q.size(-1));
}

void FlashAttentionForward(at::ArrayRef<FlashAttentionForwardCall> calls, double scale,
                           bool causal) {
  if (!calls.empty() && calls[0].q.scalar_type() == at::kFloat)
    return ForwardInFp32(calls, scale, causal);
  std::vector<FlashAttentionForwardParams> items;
  for (const FlashAttentionForwardCall& c : calls) {
    const FlashAttentionShape shape = ShapeOf(c.q, c.k, scale, causal);
    const Sizes sizes(shape);
    items.push_back({.shape = shape,
                     .q = ViewOf<const BFloat16>(c.q, sizes.q, at::kBFloat16),
                     .k = ViewOf<const BFloat16>(c.k, sizes.k, at::kBFloat16),
                     .v = ViewOf<const BFloat16>(c.v, sizes.k, at::kBFloat16),
                     .out = ViewOf<BFloat16>(c.out, sizes.q, at::kBFloat16),
                     .lse = ViewOf<float>(c.lse, sizes.lse, at::kFloat)});
  }
  RunTasks(items, FlashAttentionForwardTasks, FlashAttentionForwardScratchBytes,
           FlashAttentionForwardTask);
}

void FlashAttentionBackward(at::ArrayRef<FlashAttentionBackwardCall> calls, double scale,
                            bool causal) {
  std::vector<FlashAttentionBackwardParams> items;
  for (const FlashAttentionBackwardCall& c : calls) {
    const FlashAttentionShape shape = ShapeOf(c.q, c.k, scale, causal);
    const Sizes sizes(shape);
    items.push_back({.shape = shape,
                     .q = ViewOf<const BFloat16>(c.q, sizes.q, at::kBFloat16),
                     .k = ViewOf<const BFloat16>(c.k, sizes.k, at::kBFloat16),
                     .v = ViewOf<const BFloat16>(c.v, sizes.k, at::kBFloat16),
                     .out = ViewOf<const BFloat16>(c.out, sizes.q, at::kBFloat16),
                     .dout = ViewOf<const BFloat16>(c.dout, sizes.q, at::kBFloat16),
                     .lse = ViewOf<const float>(c.lse, sizes.lse, at::kFloat),
                     .dq = ViewOf<BFloat16>(c.dq, sizes.q, at::kBFloat16),
                     .dk = ViewOf<BFloat16>(c.dk, sizes.k, at::kBFloat16),
                     .dv = ViewOf<BFloat16>(c.dv, sizes.k, at::kBFloat16),
                     .accumulate_dkv = c.accumulate_dkv});
  }
  RunTasks(items, FlashAttentionBackwardTasks, FlashAttentionBackwardScratchBytes,
           FlashAttentionBackwardTask);
}

}  // namespace ll
