// A block a token: its threads share cos and sin, which the first head brings into the cache.
#include "kernels/common/cuda.h"
#include "kernels/rope/rope.h"

namespace ll {
namespace {

constexpr int kThreads = 256;

template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads) RopeKernel(const RopeParams p) {
  const int half = static_cast<int>(p.head_dim / 2), pieces = half / kVector;
  const int64_t token = blockIdx.x;
  T* x = static_cast<T*>(p.x) + token * p.token_stride;
  const int work = static_cast<int>(p.heads) * pieces;
  for (int item = static_cast<int>(threadIdx.x); item < work; item += kThreads) {
    const int head = item / pieces, i = item % pieces * kVector;
    T* x1 = x + static_cast<int64_t>(head) * p.head_dim + i;
    T* x2 = x1 + half;
    float a[kVector], b[kVector], c[kVector], s[kVector];
    cuda::Load(x1, a);
    cuda::Load(x2, b);
    cuda::Load(p.cos + token * half + i, c);
    cuda::Load(p.sin + token * half + i, s);
    LL_UNROLL
    for (int k = 0; k < kVector; ++k) {
      const float sine = p.backward ? -s[k] : s[k], before = a[k];
      a[k] = before * c[k] - b[k] * sine;
      b[k] = b[k] * c[k] + before * sine;
    }
    cuda::Store(x1, a);
    cuda::Store(x2, b);
  }
}

template <typename T>
void Launch(const RopeParams& p, int64_t tokens, void* stream) {
  constexpr int kVector = cuda::kWidest<T>;
  const unsigned grid = static_cast<unsigned>(tokens);
  if (p.head_dim / 2 % kVector == 0 && p.token_stride % kVector == 0 && cuda::Aligned16(p.x) &&
      cuda::Aligned16(p.cos) && cuda::Aligned16(p.sin)) {
    LL_LAUNCH((RopeKernel<T, kVector>), grid, kThreads, 0, stream, p);
  } else {
    LL_LAUNCH((RopeKernel<T, 1>), grid, kThreads, 0, stream, p);
  }
}

}  // namespace

int RopeCuda(const RopeParams& p, int64_t tokens, void* stream) {
  if (tokens == 0 || p.heads == 0) return 0;
  p.dtype == DType::kFloat32 ? Launch<float>(p, tokens, stream)
                             : Launch<BFloat16>(p, tokens, stream);
  return cudaGetLastError();
}

}  // namespace ll
