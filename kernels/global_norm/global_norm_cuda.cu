#include "kernels/common/cuda.h"
#include "kernels/global_norm/global_norm.h"

namespace ll {
namespace {

constexpr int kThreads = 256;

// A block an item; every thread adds its own elements in order, so the bits never change.
template <int kVector>
__global__ void __launch_bounds__(kThreads) SumSquaresKernel(const SumSquaresParams p) {
  LL_SHARED(double, sums, kThreads / cuda::kWarp);
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kSumSquaresBlock;
  const int64_t end = begin + kSumSquaresBlock < p.size ? begin + kSumSquaresBlock : p.size;
  double sum = 0;
  int64_t i = begin + static_cast<int64_t>(threadIdx.x) * kVector;
  for (; i + kVector <= end; i += kThreads * kVector) {
    float x[kVector];
    cuda::Load(p.x + i, x);
    LL_UNROLL
    for (int k = 0; k < kVector; ++k) sum += static_cast<double>(x[k]) * x[k];
  }
  for (; i < end; ++i) sum += static_cast<double>(p.x[i]) * p.x[i];
  sum = cuda::GroupSum<kThreads>(sum, sums);
  if (threadIdx.x == 0) p.block_sums[blockIdx.x] = sum;
}

}  // namespace

int SumSquaresCuda(const SumSquaresParams& p, int64_t blocks, void* stream) {
  if (blocks == 0) return 0;
  const unsigned grid = static_cast<unsigned>(blocks);
  if (cuda::Aligned16(p.x)) {
    LL_LAUNCH(SumSquaresKernel<4>, grid, kThreads, 0, stream, p);
  } else {
    LL_LAUNCH(SumSquaresKernel<1>, grid, kThreads, 0, stream, p);
  }
  return cudaGetLastError();
}

}  // namespace ll
