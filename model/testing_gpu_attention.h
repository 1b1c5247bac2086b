// LibTorch's attention kernels for GPUs, computed on the host: the same layouts in and out, and
// what they demand or take for granted ends the test. For tests of what attention_cuda.cc makes of
// them.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/check.h"
#include "model/attention_cuda.h"

namespace ll {

// How often each kernel was called, forward and backward.
struct GpuAttentionCalls {
  int flash = 0, packed = 0, cudnn = 0, efficient = 0;
  bool operator==(const GpuAttentionCalls&) const = default;
};
inline GpuAttentionCalls& CallsOfGpuAttention() {
  static GpuAttentionCalls calls;
  return calls;
}
// cuDNN finds no plan.
inline bool& CudnnRefuses() {
  static bool refuses = false;
  return refuses;
}

namespace testing_gpu_attention {

using Gradients = GpuAttention::Gradients;
using Inputs = GpuAttention::Inputs;
using Result = GpuAttention::Result;

// Of [H, N, D] and [K, M, D] in fp64. True: the query does not see the key.
inline at::Tensor Hidden(int64_t queries, int64_t keys, bool causal, int64_t window,
                         bool bottom_right) {
  const at::Tensor age = at::arange(queries).unsqueeze(1) + (bottom_right ? keys - queries : 0) -
                         at::arange(keys).unsqueeze(0);
  at::Tensor hidden = at::zeros({queries, keys}, at::kBool);
  if (causal) hidden = age.lt(0);
  if (window > 0) hidden = hidden.logical_or(age.ge(window));
  return hidden;
}

struct Exact {
  at::Tensor q, k, v, p, lse;  // of one sequence, keys repeated
  double scale;

  Exact(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, bool causal,
        int64_t window, bool bottom_right) {
    const int64_t group = queries.size(0) / keys.size(0);
    q = queries.to(at::kDouble);
    k = keys.to(at::kDouble).repeat_interleave(group, 0);
    v = values.to(at::kDouble).repeat_interleave(group, 0);
    scale = 1.0 / std::sqrt(static_cast<double>(q.size(2)));
    const at::Tensor scores =
        at::matmul(q, k.transpose(1, 2))
            .mul(scale)
            .masked_fill(Hidden(q.size(1), k.size(1), causal, window, bottom_right),
                         -std::numeric_limits<double>::infinity());
    lse = at::logsumexp(scores, {2});
    p = at::softmax(scores, 2);
  }
  at::Tensor Out() const { return at::matmul(p, v); }
  // From the log-sum-exp and the output that were handed in, as the kernels do.
  Gradients Back(const at::Tensor& out, const at::Tensor& given_lse, const at::Tensor& dout,
                 int64_t kv_heads) const {
    const at::Tensor g = dout.to(at::kDouble);
    const at::Tensor weights = p * at::exp(lse - given_lse.to(at::kDouble)).unsqueeze(2);
    const at::Tensor delta = (g * out.to(at::kDouble)).sum(2, true);
    const at::Tensor ds = weights * (at::matmul(g, v.transpose(1, 2)) - delta) * scale;
    const auto summed = [&](const at::Tensor& t) {
      return t.unflatten(0, {kv_heads, t.size(0) / kv_heads}).sum(1);
    };
    return {at::matmul(ds, k), summed(at::matmul(ds.transpose(1, 2), q)),
            summed(at::matmul(weights.transpose(1, 2), g))};
  }
};

inline void CheckLastDense(const at::Tensor& t) { LL_CHECK(t.stride(-1) == 1); }

// Views [H, N, D] of each sequence of a batch [B, N, H, D] or of packed ones [N, H, D].
inline std::vector<at::Tensor> Sequences(const at::Tensor& t, const PackedSequences* packed) {
  std::vector<at::Tensor> all;
  if (packed == nullptr) {
    for (int64_t b = 0; b < t.size(0); ++b) all.push_back(t.select(0, b).transpose(0, 1));
    return all;
  }
  const at::Tensor& starts = packed->starts;
  LL_CHECK(starts.scalar_type() == at::kInt && starts.is_contiguous() && starts.dim() == 1);
  LL_CHECK(starts[0].item<int>() == 0 && starts[-1].item<int>() == t.size(0));
  int64_t longest = 0;
  for (int64_t i = 0; i + 1 < starts.numel(); ++i) {
    const int64_t begin = starts[i].item<int>(), end = starts[i + 1].item<int>();
    LL_CHECK(begin < end);
    longest = std::max(longest, end - begin);
    all.push_back(t.narrow(0, begin, end - begin).transpose(0, 1));
  }
  LL_CHECK(longest == packed->longest);
  return all;
}
inline void Count(const Inputs& in) {
  (in.packed == nullptr ? CallsOfGpuAttention().flash : CallsOfGpuAttention().packed) += 1;
}

inline Result FlashForward(const Inputs& in) {
  Count(in);
  for (const at::Tensor* t : {&in.q, &in.k, &in.v}) CheckLastDense(*t);
  const bool packed = in.packed != nullptr;
  Result r{at::empty(in.q.sizes(), in.q.options()),
           packed ? at::empty({in.q.size(1), in.q.size(0)}, at::kFloat)
                  : at::empty({in.q.size(0), in.q.size(2), in.q.size(1)}, at::kFloat)};
  const auto q = Sequences(in.q, in.packed), k = Sequences(in.k, in.packed),
             v = Sequences(in.v, in.packed), out = Sequences(r.out, in.packed);
  for (size_t i = 0, at = 0; i < q.size(); ++i) {
    const Exact exact(q[i], k[i], v[i], in.causal, in.window, /*bottom_right=*/true);
    out[i].copy_(exact.Out());
    const int64_t n = q[i].size(1);
    (packed ? r.lse.narrow(1, static_cast<int64_t>(at), n)
            : r.lse.select(0, static_cast<int64_t>(i)))
        .copy_(exact.lse);
    at += static_cast<size_t>(n);
  }
  return r;
}

inline Gradients FlashBackward(const Inputs& in, const Result& r, const at::Tensor& dout) {
  Count(in);
  for (const at::Tensor* t : {&in.q, &in.k, &in.v, &r.out, &dout}) CheckLastDense(*t);
  LL_CHECK(r.lse.is_contiguous() && r.out.sizes() == in.q.sizes() && dout.sizes() == in.q.sizes());
  Gradients g{at::empty(in.q.sizes(), in.q.options()), at::empty(in.k.sizes(), in.k.options()),
              at::empty(in.v.sizes(), in.v.options())};
  const auto q = Sequences(in.q, in.packed), k = Sequences(in.k, in.packed),
             v = Sequences(in.v, in.packed), out = Sequences(r.out, in.packed),
             d = Sequences(dout, in.packed), dq = Sequences(g.dq, in.packed),
             dk = Sequences(g.dk, in.packed), dv = Sequences(g.dv, in.packed);
  int64_t at = 0;
  for (size_t i = 0; i < q.size(); ++i) {
    const Exact exact(q[i], k[i], v[i], in.causal, in.window, /*bottom_right=*/true);
    const at::Tensor lse = in.packed != nullptr ? r.lse.narrow(1, at, q[i].size(1))
                                                : r.lse.select(0, static_cast<int64_t>(i));
    const Gradients one = exact.Back(out[i], lse, d[i], k[i].size(0));
    dq[i].copy_(one.dq);
    dk[i].copy_(one.dk);
    dv[i].copy_(one.dv);
    at += q[i].size(1);
  }
  return g;
}

// [B, H, N, D], masks aligned at the top left.
inline Result HeadsFirstForward(const Inputs& in, int64_t lse_multiple) {
  const int64_t n = in.q.size(2), rows = (n + lse_multiple - 1) / lse_multiple * lse_multiple;
  Result r{at::empty(in.q.sizes(), in.q.options()),
           at::full({in.q.size(0), in.q.size(1), rows}, NAN, at::kFloat)};
  for (int64_t b = 0; b < in.q.size(0); ++b) {
    const Exact exact(in.q[b], in.k[b], in.v[b], in.causal, 0, /*bottom_right=*/false);
    r.out[b].copy_(exact.Out());
    r.lse[b].narrow(1, 0, n).copy_(exact.lse);
  }
  return r;
}
inline Gradients HeadsFirstBackward(const Inputs& in, const Result& r, const at::Tensor& dout) {
  Gradients g{at::empty(in.q.sizes(), in.q.options()), at::empty(in.k.sizes(), in.k.options()),
              at::empty(in.v.sizes(), in.v.options())};
  for (int64_t b = 0; b < in.q.size(0); ++b) {
    const Exact exact(in.q[b], in.k[b], in.v[b], in.causal, 0, /*bottom_right=*/false);
    const Gradients one =
        exact.Back(r.out[b], r.lse[b].narrow(1, 0, in.q.size(2)), dout[b], in.k.size(1));
    g.dq[b].copy_(one.dq);
    g.dk[b].copy_(one.dk);
    g.dv[b].copy_(one.dv);
  }
  return g;
}

inline void CheckCudnn(const Inputs& in) {
  TORCH_CHECK(!CudnnRefuses(), "no execution plan");
  CallsOfGpuAttention().cudnn += 1;
  LL_CHECK(in.packed == nullptr && in.window == 0);
  LL_CHECK(in.q.scalar_type() == at::kBFloat16 && in.q.size(2) == in.k.size(2) && in.causal);
}
inline Result CudnnForward(const Inputs& in) {
  CheckCudnn(in);
  return HeadsFirstForward(in, 1);
}
inline Gradients CudnnBackward(const Inputs& in, const Result& r, const at::Tensor& dout) {
  CheckCudnn(in);
  LL_CHECK(r.lse.is_contiguous());
  LL_CHECK(r.out.strides() == dout.strides());
  return HeadsFirstBackward(in, r, dout);
}

inline void CheckEfficient(const Inputs& in) {
  CallsOfGpuAttention().efficient += 1;
  LL_CHECK(in.packed == nullptr && in.window == 0 && in.q.size(1) == in.k.size(1));
}
inline Result EfficientForward(const Inputs& in) {
  CheckEfficient(in);
  return HeadsFirstForward(in, 32);
}
inline Gradients EfficientBackward(const Inputs& in, const Result& r, const at::Tensor& dout) {
  CheckEfficient(in);
  LL_CHECK(r.lse.size(2) % 32 == 0);
  LL_CHECK(r.out.transpose(1, 2).is_contiguous());
  return HeadsFirstBackward(in, r, dout);
}

}  // namespace testing_gpu_attention

inline const GpuAttention& HostGpuAttention() {
  namespace t = testing_gpu_attention;
  static const GpuAttention attention = {{t::FlashForward, t::FlashBackward},
                                         {t::CudnnForward, t::CudnnBackward},
                                         {t::EfficientForward, t::EfficientBackward}};
  return attention;
}

}  // namespace ll
