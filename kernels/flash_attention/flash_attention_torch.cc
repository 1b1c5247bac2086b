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
#include "kernels/flash_attention/flash_backward_fp32.h"
#include "kernels/flash_attention/flash_forward_fp32.h"

namespace ll {
namespace {

template <typename T>
AttentionView<T> ViewOf(const at::Tensor& t, at::IntArrayRef sizes, at::ScalarType type) {
  LL_CHECK(t.device().is_cpu() && t.scalar_type() == type && t.sizes() == sizes);
  LL_CHECK(sizes.size() == 3 || t.stride(3) == 1);
  return {static_cast<T*>(t.data_ptr()), t.stride(0), t.stride(1), t.stride(2)};
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

DType TypeOf(const at::Tensor& t) {
  LL_CHECK(t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16);
  return t.scalar_type() == at::kFloat ? DType::kFloat32 : DType::kBFloat16;
}

// bf16 comes of bf16 alone: what was wider going in is not rounded coming out.
void CheckResultType(const at::Tensor& in, const at::Tensor& result) {
  LL_CHECK(TypeOf(result) == DType::kFloat32 || TypeOf(in) == DType::kBFloat16);
}

void CheckGradientTypes(const FlashAttentionBackwardCall& c) {
  CheckResultType(c.q, c.dq);
  CheckResultType(c.dq, c.dk);
  LL_CHECK(TypeOf(c.dk) == TypeOf(c.dv));
}

void ForwardInFp32(at::ArrayRef<FlashAttentionForwardCall> calls, double scale, bool causal) {
  std::vector<FlashForwardFp32Params> items;
  for (const FlashAttentionForwardCall& c : calls) {
    const FlashAttentionShape shape = ShapeOf(c.q, c.k, scale, causal);
    LL_CHECK(FlashFp32Takes(shape.head_dim));
    CheckResultType(c.q, c.out);
    const Sizes sizes(shape);
    const at::ScalarType in = c.q.scalar_type();
    items.push_back({.shape = shape,
                     .in_type = TypeOf(c.q),
                     .out_type = TypeOf(c.out),
                     .q = ViewOf<const void>(c.q, sizes.q, in),
                     .k = ViewOf<const void>(c.k, sizes.k, in),
                     .v = ViewOf<const void>(c.v, sizes.k, in),
                     .out = ViewOf<void>(c.out, sizes.q, c.out.scalar_type()),
                     .lse = ViewOf<float>(c.lse, sizes.lse, at::kFloat)});
  }
  RunTasks(items, FlashForwardFp32Tasks, FlashForwardFp32ScratchBytes,
           [](FlashForwardFp32Params p, int64_t task, void* scratch) {
             p.scratch = scratch;
             FlashForwardFp32(p, task, task + 1);
           });
}

void BackwardInFp32(at::ArrayRef<FlashAttentionBackwardCall> calls, double scale, bool causal) {
  std::vector<FlashBackwardFp32Params> items;
  for (const FlashAttentionBackwardCall& c : calls) {
    const FlashAttentionShape shape = ShapeOf(c.q, c.k, scale, causal);
    LL_CHECK(FlashFp32Takes(shape.head_dim));
    CheckGradientTypes(c);
    const Sizes sizes(shape);
    const at::ScalarType in = c.q.scalar_type(), dkv = c.dk.scalar_type();
    items.push_back({.shape = shape,
                     .in_type = TypeOf(c.q),
                     .dq_type = TypeOf(c.dq),
                     .dkv_type = TypeOf(c.dk),
                     .q = ViewOf<const void>(c.q, sizes.q, in),
                     .k = ViewOf<const void>(c.k, sizes.k, in),
                     .v = ViewOf<const void>(c.v, sizes.k, in),
                     .out = ViewOf<const void>(c.out, sizes.q, in),
                     .dout = ViewOf<const void>(c.dout, sizes.q, in),
                     .lse = ViewOf<const float>(c.lse, sizes.lse, at::kFloat),
                     .dq = ViewOf<void>(c.dq, sizes.q, c.dq.scalar_type()),
                     .dk = ViewOf<void>(c.dk, sizes.k, dkv),
                     .dv = ViewOf<void>(c.dv, sizes.k, dkv),
                     .accumulate_dkv = c.accumulate_dkv});
  }
  RunTasks(items, FlashBackwardFp32Tasks, FlashBackwardFp32ScratchBytes,
           [](FlashBackwardFp32Params p, int64_t task, void* scratch) {
             p.scratch = scratch;
             FlashBackwardFp32(p, task, task + 1);
           });
}

// Whether the AMX kernels take it.
bool TilesTake(const at::Tensor& q) {
  return q.scalar_type() == at::kBFloat16 && FlashAttentionSupported(q.size(-1));
}

// Where bf16 is wanted, and where fp32.
template <typename Wide, typename Narrow>
void SetResult(const at::Tensor& t, at::IntArrayRef sizes, Wide& wide, Narrow& narrow) {
  if (t.scalar_type() == at::kFloat) {
    wide = ViewOf<float>(t, sizes, at::kFloat);
  } else {
    narrow = ViewOf<BFloat16>(t, sizes, at::kBFloat16);
  }
}

}  // namespace

bool FlashAttentionUsable(const at::Tensor& q) {
  if (!q.device().is_cpu() || q.dim() == 0) return false;
  if (TilesTake(q)) return true;
  // Without wide vectors nobody has compared them (docs/performance.md).
  return CpuIsa() != Isa::kGeneric && FlashFp32Takes(q.size(-1)) &&
         (q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16);
}

void FlashAttentionForward(at::ArrayRef<FlashAttentionForwardCall> calls, double scale,
                           bool causal) {
  if (!calls.empty() && !TilesTake(calls[0].q)) return ForwardInFp32(calls, scale, causal);
  std::vector<FlashAttentionForwardParams> items;
  for (const FlashAttentionForwardCall& c : calls) {
    const FlashAttentionShape shape = ShapeOf(c.q, c.k, scale, causal);
    const Sizes sizes(shape);
    items.push_back({.shape = shape,
                     .q = ViewOf<const BFloat16>(c.q, sizes.q, at::kBFloat16),
                     .k = ViewOf<const BFloat16>(c.k, sizes.k, at::kBFloat16),
                     .v = ViewOf<const BFloat16>(c.v, sizes.k, at::kBFloat16),
                     .lse = ViewOf<float>(c.lse, sizes.lse, at::kFloat)});
    SetResult(c.out, sizes.q, items.back().out_fp32, items.back().out);
  }
  RunTasks(items, FlashAttentionForwardTasks, FlashAttentionForwardScratchBytes,
           FlashAttentionForwardTask);
}

void FlashAttentionBackward(at::ArrayRef<FlashAttentionBackwardCall> calls, double scale,
                            bool causal) {
  if (!calls.empty() && !TilesTake(calls[0].q)) return BackwardInFp32(calls, scale, causal);
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
                     .accumulate_dkv = c.accumulate_dkv});
    FlashAttentionBackwardParams& p = items.back();
    CheckGradientTypes(c);
    SetResult(c.dq, sizes.q, p.dq_fp32, p.dq);
    SetResult(c.dk, sizes.k, p.dk_fp32, p.dk);
    SetResult(c.dv, sizes.k, p.dv_fp32, p.dv);
  }
  RunTasks(items, FlashAttentionBackwardTasks, FlashAttentionBackwardScratchBytes,
           FlashAttentionBackwardTask);
}

}  // namespace ll
