// Root-mean-square norm (Llama): y = w * x * rstd, rstd = 1 / sqrt(mean(x^2) + eps), computed in
// fp32.
//
// Backward, with xhat = x * rstd and g = dy * w:  dx = rstd * (g - xhat * mean(g * xhat)),  dw =
// sum_rows dy * xhat.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

// Where row r lies: rows are `width` contiguous elements, `heads` of them beside each other in a
// token, and tokens are token_stride elements apart. A plain [rows, width] matrix is {1, width}.
struct RmsNormRows {
  int64_t heads;
  int64_t token_stride;
};

// x, y: rows of `dtype`; rstd [rows] fp32 is written. y may be x.
// w [width] is fp32 whatever the dtype: weights lie near 1, where bf16's steps of 2^-7 would
// swallow hundreds of optimizer steps.
struct RmsNormForwardParams {
  const void* x;
  const float* w;
  void* y;
  float* rstd;
  int64_t width;
  RmsNormRows x_rows, y_rows;
  float eps;
  DType dtype;
};
LL_SIMD_KERNEL(RmsNormForward, RmsNormForwardParams)
LL_CUDA_KERNEL(RmsNormForward, RmsNormForwardParams)

// Rows per partial sum of dw. A fixed block, so that the sum's order does not depend on the number
// of threads. A GPU's blocks run at the same time and should be many; a short row is a head, of
// which there are many more.
inline int64_t RmsNormBlockRows(int64_t width, bool cuda) {
  if (!cuda) return 128;
  return width <= 1024 ? 256 : 32;
}

// dx += the gradient of x, in place: what is there arrived over the residual connection; without
// `accumulate` dx is overwritten and may be dy. rstd as the forward wrote it. dw_blocks [ceil(rows
// / block_rows), width] fp32 is overwritten with the blocks' sums, or null when w is frozen. Items
// are blocks of block_rows rows.
struct RmsNormBackwardParams {
  const void* dy;
  const void* x;
  const float* w;
  const float* rstd;
  void* dx;
  float* dw_blocks;
  int64_t rows, block_rows;
  int64_t width;
  RmsNormRows dy_rows, x_rows, dx_rows;
  bool accumulate;
  DType dtype;
};
LL_SIMD_KERNEL(RmsNormBackward, RmsNormBackwardParams)
LL_CUDA_KERNEL(RmsNormBackward, RmsNormBackwardParams)

}  // namespace ll
