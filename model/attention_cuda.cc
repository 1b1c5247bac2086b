#include "model/attention_cuda.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include <ATen/Context.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "model/attention_calls.h"
#include "model/libtorch_attention.h"
#include "model/plan/gpu_attention.h"

namespace ll {
namespace {

const GpuAttention* in_place = nullptr;  // of a test

struct Known {
  std::optional<AttentionTable> table;
  int major = 0;
};
Known& What() {
  static Known known;
  return known;
}
// cuDNN builds a plan for each shape at its first call and may find none. What it refused once is
// FlashAttention-2's from there on.
bool cudnn_refused = false;

const GpuAttention& Attention() { return in_place != nullptr ? *in_place : LibTorchAttention(); }

bool Deterministic() { return at::globalContext().deterministicAlgorithms(); }

AttentionKernel KernelOf(const at::Tensor& q, const at::Tensor& k, bool causal, int64_t window) {
  const AttentionNeeds needs{.bf16 = q.scalar_type() == at::kBFloat16,
                             .plain = causal && window == 0 && q.size(2) == k.size(2),
                             .grouped_heads = q.size(1) != k.size(1),
                             .deterministic = Deterministic(),
                             .head_dim = q.size(3)};
  const Known& known = What();
  const AttentionKernel kernel =
      ChooseAttention(known.table ? &*known.table : nullptr, known.major, needs).kernel;
  return kernel == AttentionKernel::kCudnn && cudnn_refused ? AttentionKernel::kFlash : kernel;
}

// [B, H, N, D] to FlashAttention-2's [B, N, H, D] and back.
at::Tensor Swapped(const at::Tensor& t) { return t.transpose(1, 2); }
// [1, H, N, D] to its [N, H, D] of packed sequences and back.
at::Tensor Packed(const at::Tensor& t) { return t.squeeze(0).transpose(0, 1); }
at::Tensor Unpacked(const at::Tensor& t) { return t.transpose(0, 1).unsqueeze(0); }

void Put(const at::Tensor& from, const at::Tensor& to, bool add) {
  add ? to.add_(from) : to.copy_(from);
}

void Put(const GpuAttention::Gradients& g, const FlashAttentionBackwardCall& c) {
  c.dq.copy_(g.dq);
  Put(g.dk, c.dk, c.accumulate_dkv);
  Put(g.dv, c.dv, c.accumulate_dkv);
}

void FlashForward(const FlashAttentionForwardCall& c, bool causal, int64_t window) {
  const GpuAttention::Result r = Attention().flash.forward(
      {Swapped(c.q), Swapped(c.k), Swapped(c.v), nullptr, causal, window});
  c.out.copy_(Swapped(r.out));
  c.lse.copy_(r.lse);
}

void FlashBackward(const FlashAttentionBackwardCall& c, bool causal, int64_t window) {
  const GpuAttention::Gradients g = Attention().flash.backward(
      {Swapped(c.q), Swapped(c.k), Swapped(c.v), nullptr, causal, window},
      {Swapped(c.out), c.lse.contiguous()}, Swapped(c.dout));
  Put({Swapped(g.dq), Swapped(g.dk), Swapped(g.dv)}, c);
}

// Whether cuDNN took it. Running out of memory is no refusal.
template <typename Call>
bool CudnnTook(Call call) {
  try {
    call();
    return true;
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    cudnn_refused = true;
    TORCH_WARN("cuDNN refuses this attention, FlashAttention-2 goes on: ",
               what.substr(0, what.find('\n')));
    return false;
  }
}

bool CudnnForward(const FlashAttentionForwardCall& c) {
  return CudnnTook([&] {
    const GpuAttention::Result r = Attention().cudnn.forward({c.q, c.k, c.v});
    c.out.copy_(r.out);
    c.lse.copy_(r.lse);
  });
}

bool CudnnBackward(const FlashAttentionBackwardCall& c) {
  return CudnnTook([&] {
    Put(Attention().cudnn.backward({c.q, c.k, c.v}, {c.out, c.lse.contiguous()}, c.dout), c);
  });
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

// It aligns causal masks at the top left: fewer queries than keys are filled up in front.
void EfficientForward(const FlashAttentionForwardCall& c, bool causal) {
  const int64_t queries = c.q.size(2), heads = c.q.size(1);
  const int64_t rows = causal ? c.k.size(2) : queries, front = rows - queries;
  const GpuAttention::Result r =
      Attention().efficient.forward({WithZeroQueriesInFront(c.q, rows), Repeated(c.k, heads),
                                     Repeated(c.v, heads), nullptr, causal});
  c.out.copy_(r.out.narrow(2, front, queries));
  c.lse.copy_(r.lse.narrow(2, front, queries));
}

void EfficientBackward(const FlashAttentionBackwardCall& c, bool causal) {
  const int64_t queries = c.q.size(2), heads = c.q.size(1), kv_heads = c.k.size(1);
  const int64_t rows = causal ? c.k.size(2) : queries, front = rows - queries;
  at::Tensor lse = at::zeros({c.q.size(0), heads, LseRows(rows)}, c.lse.options());
  lse.narrow(2, front, queries).copy_(c.lse);
  // It takes the output's rows to be dense, whatever their strides say.
  const at::Tensor out = Swapped(Swapped(WithZeroQueriesInFront(c.out, rows)).contiguous());
  const GpuAttention::Gradients g =
      Attention().efficient.backward({WithZeroQueriesInFront(c.q, rows), Repeated(c.k, heads),
                                      Repeated(c.v, heads), nullptr, causal},
                                     {out, lse}, WithZeroQueriesInFront(c.dout, rows));
  Put({g.dq.narrow(2, front, queries), Summed(g.dk, kv_heads), Summed(g.dv, kv_heads)}, c);
}

// Calls visit(part) for some of the call's heads after others.
template <typename Visit>
void ForEachPartOfHeads(const FlashAttentionBackwardCall& c, Visit visit) {
  const int64_t heads = c.q.size(1), group = heads / c.k.size(1);
  const int64_t step = GpuAttentionHeads({.batch = c.q.size(0),
                                          .heads = heads,
                                          .kv_heads = c.k.size(1),
                                          .queries = c.q.size(2),
                                          .keys = c.k.size(2),
                                          .head_dim = c.q.size(3),
                                          .deterministic = Deterministic()});
  for (int64_t first = 0; first < heads; first += step) {
    const int64_t n = std::min(step, heads - first);
    const auto of = [&](const at::Tensor& t) { return t.narrow(1, first, n); };
    const auto of_kv = [&](const at::Tensor& t) { return t.narrow(1, first / group, n / group); };
    visit(FlashAttentionBackwardCall{of(c.q), of_kv(c.k), of_kv(c.v), of(c.out), of(c.lse),
                                     of(c.dout), of(c.dq), of_kv(c.dk), of_kv(c.dv),
                                     c.accumulate_dkv});
  }
}

void BackwardPart(const FlashAttentionBackwardCall& c, bool causal, int64_t window) {
  switch (KernelOf(c.q, c.k, causal, window)) {
    case AttentionKernel::kEfficient:
      return EfficientBackward(c, causal);
    case AttentionKernel::kCudnn:
      if (CudnnBackward(c)) return;
      [[fallthrough]];
    case AttentionKernel::kFlash:
      return FlashBackward(c, causal, window);
  }
}

void CheckWindow(const at::Tensor& q, int64_t window) {
  TORCH_CHECK(window == 0 || q.scalar_type() == at::kBFloat16,
              "sliding windows on a GPU need bf16");
}

GpuAttention::Inputs PackedInputs(const FlashAttentionForwardCall& c,
                                  const PackedSequences& sequences, int64_t window) {
  LL_CHECK(c.q.size(0) == 1 && c.q.size(2) == c.k.size(2));
  return {Packed(c.q), Packed(c.k), Packed(c.v), &sequences, /*causal=*/true, window};
}

}  // namespace

void CudaAttentionForward(const FlashAttentionForwardCall& call, bool causal, int64_t window) {
  if (call.q.numel() == 0) return;
  CheckWindow(call.q, window);
  switch (KernelOf(call.q, call.k, causal, window)) {
    case AttentionKernel::kEfficient:
      return EfficientForward(call, causal);
    case AttentionKernel::kCudnn:
      if (CudnnForward(call)) return;
      [[fallthrough]];
    case AttentionKernel::kFlash:
      return FlashForward(call, causal, window);
  }
}

void CudaAttentionBackward(const FlashAttentionBackwardCall& call, bool causal, int64_t window) {
  if (call.q.numel() == 0) return;
  CheckWindow(call.q, window);
  ForEachPartOfHeads(
      call, [&](const FlashAttentionBackwardCall& part) { BackwardPart(part, causal, window); });
}

void CudaPackedForward(const FlashAttentionForwardCall& call, const PackedSequences& sequences,
                       int64_t window) {
  const GpuAttention::Result r = Attention().flash.forward(PackedInputs(call, sequences, window));
  call.out.copy_(Unpacked(r.out));
  call.lse.copy_(r.lse.unsqueeze(0));
}

void CudaPackedBackward(const FlashAttentionBackwardCall& call, const PackedSequences& sequences,
                        int64_t window) {
  ForEachPartOfHeads(call, [&](const FlashAttentionBackwardCall& c) {
    const GpuAttention::Gradients g =
        Attention().flash.backward(PackedInputs({c.q, c.k, c.v, c.out, c.lse}, sequences, window),
                                   {Packed(c.out), c.lse.squeeze(0).contiguous()}, Packed(c.dout));
    Put({Unpacked(g.dq), Unpacked(g.dk), Unpacked(g.dv)}, c);
  });
}

std::string UseAttentionTable(std::optional<AttentionTable> table, int major) {
  What() = {std::move(table), major};
  cudnn_refused = false;
  const AttentionChoice choice = ChooseAttention(What().table ? &*What().table : nullptr, major,
                                                 {.deterministic = Deterministic()});
  return absl::StrCat(AttentionKernelName(choice.kernel), ": ", choice.reason);
}

void UseGpuAttention(const GpuAttention* attention) {
  in_place = attention;
  cudnn_refused = false;
}

bool AttendsOnGpu(at::Device device) { return in_place != nullptr || device.is_cuda(); }

}  // namespace ll
