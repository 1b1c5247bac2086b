// A block has some columns of one token's gradient and adds the token's positions in order, so the
// sum is the same every time; no atomics.
#include "kernels/common/cuda.h"
#include "kernels/embedding/embedding.h"

namespace ll {
namespace {

constexpr int kThreads = 128;

template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(const EmbeddingBackwardParams p, const int64_t positions) {
  const int64_t i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kVector;
  if (i >= p.width) return;
  const int64_t begin = blockIdx.x, token = p.tokens[p.order[begin]];
  if (begin > 0 && p.tokens[p.order[begin - 1]] == token) return;
  float* grad = p.grad + token * p.width + i;
  const T* dy = static_cast<const T*>(p.dy) + i;
  float sum[kVector], v[kVector];
  cuda::Load(grad, sum);
  for (int64_t k = begin; k < positions; ++k) {
    const int64_t position = p.order[k];
    if (p.tokens[position] != token) break;
    cuda::Load(dy + position * p.width, v);
    LL_UNROLL
    for (int j = 0; j < kVector; ++j) sum[j] += v[j];
  }
  cuda::Store(grad, sum);
}

template <typename T>
void Launch(const EmbeddingBackwardParams& p, int64_t positions, void* stream) {
  constexpr int kVector = cuda::kWidest<T>;
  const unsigned x = static_cast<unsigned>(positions);
  if (p.width % kVector == 0 && cuda::Aligned16(p.dy) && cuda::Aligned16(p.grad)) {
    LL_LAUNCH((BackwardKernel<T, kVector>), dim3(x, cuda::Blocks(p.width, kThreads * kVector)),
              kThreads, 0, stream, p, positions);
  } else {
    LL_LAUNCH((BackwardKernel<T, 1>), dim3(x, cuda::Blocks(p.width, kThreads)), kThreads, 0, stream,
              p, positions);
  }
}

}  // namespace

int EmbeddingBackwardCuda(const EmbeddingBackwardParams& p, int64_t positions, void* stream) {
  if (positions == 0) return 0;
  p.dtype == DType::kFloat32 ? Launch<float>(p, positions, stream)
                             : Launch<BFloat16>(p, positions, stream);
  return cudaGetLastError();
}

}  // namespace ll
