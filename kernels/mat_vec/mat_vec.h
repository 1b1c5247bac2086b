// A matrix times one vector: y = W x (+ add). Generation's products are bound by reading W, which
// is why they are not left to a GEMM made for many rows; sums are fp32.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

// Elements of a bf16 row come two to a 32-bit word and are widened without a shuffle; x is
// therefore given in blocks of this many, first the even ones, then the odd ones. What remains at
// the end, and all of x for fp32 weights, stays in order.
constexpr int64_t kMatVecBlock = 32;

// Items are rows of W. A row's sum does not depend on how rows are divided.
struct MatVecParams {
  const void* w;    // [out, in]
  const float* x;   // [in], arranged as above
  const void* add;  // [out], or null
  void* y;          // [out]
  int64_t in;
  DType dtype;    // of w and add
  DType y_dtype;  // dtype, or fp32
};
LL_SIMD_KERNEL(MatVec, MatVecParams)

}  // namespace ll
