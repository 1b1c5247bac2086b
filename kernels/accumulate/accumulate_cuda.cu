#include "kernels/accumulate/accumulate.h"
#include "kernels/common/cuda.h"

namespace ll {
namespace {

constexpr int kThreads = 256;

// The last elements, fewer than a vector, are one thread's.
template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads)
    AccumulateKernel(const AccumulateParams p, const int64_t size) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kVector;
  const T* x = static_cast<const T*>(p.x);
  if (i + kVector <= size) {
    float sum[kVector], v[kVector];
    cuda::Load(p.sum + i, sum);
    cuda::Load(x + i, v);
    LL_UNROLL
    for (int k = 0; k < kVector; ++k) sum[k] += v[k] * p.scale;
    cuda::Store(p.sum + i, sum);
  } else {
    for (int64_t k = i; k < size; ++k) p.sum[k] += cuda::ToFloat(x[k]) * p.scale;
  }
}

template <typename T>
void Launch(const AccumulateParams& p, int64_t size, void* stream) {
  constexpr int kVector = cuda::kWidest<T>;
  if (cuda::Aligned16(p.x) && cuda::Aligned16(p.sum)) {
    LL_LAUNCH((AccumulateKernel<T, kVector>), cuda::Blocks(size, kThreads * kVector), kThreads, 0,
              stream, p, size);
  } else {
    LL_LAUNCH((AccumulateKernel<T, 1>), cuda::Blocks(size, kThreads), kThreads, 0, stream, p, size);
  }
}

}  // namespace

int AccumulateCuda(const AccumulateParams& p, int64_t size, void* stream) {
  if (size == 0) return 0;
  p.dtype == DType::kFloat32 ? Launch<float>(p, size, stream) : Launch<BFloat16>(p, size, stream);
  return cudaGetLastError();
}

}  // namespace ll
