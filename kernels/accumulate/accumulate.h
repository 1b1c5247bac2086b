// sum += scale * x, where x is in the compute dtype and the sum in fp32: adds a GEMM's result to a
// gradient.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

// Flat arrays; items are elements.
struct AccumulateParams {
  float* sum;
  const void* x;
  float scale;
  DType dtype;
};
LL_SIMD_KERNEL(Accumulate, AccumulateParams)
LL_CUDA_KERNEL(Accumulate, AccumulateParams)

}  // namespace ll
