#include "model/libtorch_attention.h"

#include <tuple>

#include <ATen/Context.h>

namespace ll {
namespace {

using Gradients = GpuAttention::Gradients;
using Inputs = GpuAttention::Inputs;
using Result = GpuAttention::Result;

// Without dropout nobody reads the generator's state.
at::Tensor NoRandomState(const at::Tensor& like) {
  return at::empty({2}, like.options().dtype(at::kLong));
}

// FlashAttention-2 fixes the order of dq's sum where deterministic algorithms are demanded; where
// they are only asked for (warn_only, as for everything else here), it warns and does not.
class OrderDemanded {
 public:
  OrderDemanded()
      : asked_(at::globalContext().deterministicAlgorithms()),
        warn_only_(at::globalContext().deterministicAlgorithmsWarnOnly()) {
    if (asked_) at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  }
  ~OrderDemanded() {
    if (asked_) at::globalContext().setDeterministicAlgorithms(true, warn_only_);
  }
  OrderDemanded(const OrderDemanded&) = delete;
  OrderDemanded& operator=(const OrderDemanded&) = delete;

 private:
  const bool asked_, warn_only_;
};

struct FlashShape {
  std::optional<at::Tensor> starts;
  int64_t queries, keys;               // of the longest sequence
  std::optional<int64_t> left, right;  // window; both absent: none
};
FlashShape ShapeOf(const Inputs& in) {
  FlashShape s{std::nullopt, in.q.size(1), in.k.size(1), std::nullopt, std::nullopt};
  if (in.packed != nullptr) {
    s.starts = in.packed->starts;
    s.queries = s.keys = in.packed->longest;
  }
  if (in.window > 0) {
    s.left = in.window - 1;
    s.right = 0;
  }
  return s;
}

Result FlashForward(const Inputs& in) {
  const FlashShape s = ShapeOf(in);
  const auto [out, lse, random, unused, debug] = at::_flash_attention_forward(
      in.q, in.k, in.v, s.starts, s.starts, s.queries, s.keys, 0.0, in.causal,
      /*return_debug_mask=*/false, std::nullopt, s.left, s.right);
  return {out, lse};
}

Gradients FlashBackward(const Inputs& in, const Result& r, const at::Tensor& dout) {
  const OrderDemanded demanded;
  const FlashShape s = ShapeOf(in);
  const at::Tensor starts = s.starts.value_or(at::Tensor()), random = NoRandomState(in.q);
  const auto [dq, dk, dv] = at::_flash_attention_backward(
      dout, in.q, in.k, in.v, r.out, r.lse, starts, starts, s.queries, s.keys, 0.0, in.causal,
      random, random, std::nullopt, s.left, s.right);
  return {dq, dk, dv};
}

Result CudnnForward(const Inputs& in) {
  const auto r = at::_cudnn_attention_forward(in.q, in.k, in.v, std::nullopt, std::nullopt,
                                              std::nullopt, in.q.size(2), in.k.size(2),
                                              /*compute_log_sumexp=*/true, 0.0, in.causal);
  return {std::get<0>(r), std::get<1>(r).view({in.q.size(0), in.q.size(1), in.q.size(2)})};
}

Gradients CudnnBackward(const Inputs& in, const Result& r, const at::Tensor& dout) {
  const OrderDemanded demanded;
  const at::Tensor random = NoRandomState(in.q);
  const auto [dq, dk, dv] =
      at::_cudnn_attention_backward(dout, in.q, in.k, in.v, r.out, r.lse, random[0], random[1], {},
                                    {}, {}, in.q.size(2), in.k.size(2), 0.0, in.causal);
  return {dq, dk, dv};
}

Result EfficientForward(const Inputs& in) {
  const auto [out, lse, seed, offset] = at::_scaled_dot_product_efficient_attention(
      in.q, in.k, in.v, std::nullopt, /*compute_log_sumexp=*/true, 0.0, in.causal);
  return {out, lse};
}

Gradients EfficientBackward(const Inputs& in, const Result& r, const at::Tensor& dout) {
  const at::Tensor random = NoRandomState(in.q);
  const auto g = at::_scaled_dot_product_efficient_attention_backward(
      dout, in.q, in.k, in.v, {}, r.out, r.lse, random[0], random[1], 0.0,
      {true, true, true, false}, in.causal);
  return {std::get<0>(g), std::get<1>(g), std::get<2>(g)};
}

}  // namespace

const GpuAttention& LibTorchAttention() {
  static const GpuAttention attention = {{FlashForward, FlashBackward},
                                         {CudnnForward, CudnnBackward},
                                         {EfficientForward, EfficientBackward}};
  return attention;
}

}  // namespace ll
