// Sum of squares of a flat fp32 array, for clipping by the global norm. Blocks of a fixed size are
// summed in fp64, so the result does not depend on the number of threads.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

constexpr int64_t kSumSquaresBlock = 65536;
constexpr int64_t SumSquaresBlocks(int64_t size) {
  return (size + kSumSquaresBlock - 1) / kSumSquaresBlock;
}

// block_sums [ceil(size / 65536)] is written. Items are blocks.
struct SumSquaresParams {
  const float* x;
  int64_t size;
  double* block_sums;
};
LL_SIMD_KERNEL(SumSquares, SumSquaresParams)
LL_CUDA_KERNEL(SumSquares, SumSquaresParams)

}  // namespace ll
