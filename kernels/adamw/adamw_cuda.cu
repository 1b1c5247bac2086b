// Bound by memory: 16 bytes in and 14 out an element.
#include "kernels/adamw/adamw.h"
#include "kernels/common/cuda.h"

namespace ll {
namespace {

constexpr int kThreads = 256;

template <int kVector>
__device__ void Update(const AdamWParams& p, int64_t i) {
  const float step_size = p.lr / p.bias_correction1;
  const float inverse_root = 1.0f / sqrtf(p.bias_correction2);
  float w[kVector], m[kVector], v[kVector], g[kVector];
  cuda::Load(p.master + i, w);
  cuda::Load(p.m + i, m);
  cuda::Load(p.v + i, v);
  cuda::Load(p.grad + i, g);
  LL_UNROLL
  for (int k = 0; k < kVector; ++k) {
    const float grad = g[k] * p.grad_scale;
    w[k] *= 1.0f - p.lr * p.weight_decay;
    m[k] = m[k] * p.beta1 + grad * (1.0f - p.beta1);
    v[k] = v[k] * p.beta2 + grad * grad * (1.0f - p.beta2);
    w[k] -= step_size * m[k] / (sqrtf(v[k]) * inverse_root + p.eps);
  }
  cuda::Store(p.master + i, w);
  cuda::Store(p.m + i, m);
  cuda::Store(p.v + i, v);
  if (p.compute != nullptr) cuda::Store(p.compute + i, w);
}

template <int kVector>
__global__ void __launch_bounds__(kThreads) AdamWKernel(const AdamWParams p, const int64_t size) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kVector;
  if (i + kVector <= size) {
    Update<kVector>(p, i);
  } else {
    for (int64_t k = i; k < size; ++k) Update<1>(p, k);
  }
}

}  // namespace

int AdamWCuda(const AdamWParams& p, int64_t size, void* stream) {
  if (size == 0) return 0;
  constexpr int kVector = 4;
  if (cuda::Aligned16(p.master) && cuda::Aligned16(p.m) && cuda::Aligned16(p.v) &&
      cuda::Aligned16(p.grad) && reinterpret_cast<uintptr_t>(p.compute) % 8 == 0) {
    LL_LAUNCH(AdamWKernel<kVector>, cuda::Blocks(size, kThreads * kVector), kThreads, 0, stream, p,
              size);
  } else {
    LL_LAUNCH(AdamWKernel<1>, cuda::Blocks(size, kThreads), kThreads, 0, stream, p, size);
  }
  return cudaGetLastError();
}

}  // namespace ll
