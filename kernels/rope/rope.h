// Rotary position embedding in place, in Hugging Face's "rotate half" order: with x1 = x[:D/2], x2
// = x[D/2:],
//   y1 = x1 cos - x2 sin,  y2 = x2 cos + x1 sin.
// The backward pass is the transposed rotation: the same with -sin.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

// x: token t's head h starts at x + t * token_stride + h * head_dim (elements). cos, sin [tokens,
// head_dim / 2] fp32. Items are tokens; head_dim is even.
struct RopeParams {
  void* x;
  const float* cos;
  const float* sin;
  int64_t token_stride;
  int64_t heads;
  int64_t head_dim;
  bool backward;
  DType dtype;
};
LL_SIMD_KERNEL(Rope, RopeParams)
LL_CUDA_KERNEL(Rope, RopeParams)

}  // namespace ll
