// SwiGLU: a = silu(g) * u, silu(g) = g * sigmoid(g).
//
// Backward: dg = da * u * s * (1 + g * (1 - s)),  du = da * g * s,  with s = sigmoid(g).
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

// gate_up [rows, 2 * width]: a row holds the gate projection, then the up projection. out [rows,
// width].
struct SwigluForwardParams {
  const void* gate_up;
  void* out;
  int64_t width;
  DType dtype;
};
LL_SIMD_KERNEL(SwigluForward, SwigluForwardParams)
LL_CUDA_KERNEL(SwigluForward, SwigluForwardParams)

// gate_up is overwritten in place with its gradient; dout [rows, width].
struct SwigluBackwardParams {
  void* gate_up;
  const void* dout;
  int64_t width;
  DType dtype;
};
LL_SIMD_KERNEL(SwigluBackward, SwigluBackwardParams)
LL_CUDA_KERNEL(SwigluBackward, SwigluBackwardParams)

}  // namespace ll
