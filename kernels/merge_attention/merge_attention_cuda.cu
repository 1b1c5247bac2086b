// A block a token: its threads first weigh a head each, then share the elements of all heads.
#include "kernels/common/cuda.h"
#include "kernels/merge_attention/merge_attention.h"

namespace ll {
namespace {

constexpr int kThreads = 256;

template <int kVector>
__global__ void __launch_bounds__(kThreads) MergeAttentionKernel(const MergeAttentionParams p) {
  LL_DYNAMIC_SHARED(float, weights);  // of what is there, of what comes; a pair for each head
  const int64_t token = blockIdx.x;
  for (int head = static_cast<int>(threadIdx.x); head < p.heads; head += kThreads) {
    float* lse = p.lse + head * p.lse_stride + token;
    const float mine = *lse, theirs = p.part_lse[head * p.part_lse_stride + token];
    const float both = fmaxf(mine, theirs) + log1pf(expf(-fabsf(mine - theirs)));
    weights[2 * head] = expf(mine - both);
    weights[2 * head + 1] = expf(theirs - both);
    *lse = both;
  }
  __syncthreads();
  const int width = static_cast<int>(p.heads * p.dim), dim = static_cast<int>(p.dim);
  float* out = p.out + token * width;
  const float* part = p.part + token * width;
  for (int i = static_cast<int>(threadIdx.x) * kVector; i < width; i += kThreads * kVector) {
    const float keep = weights[2 * (i / dim)], take = weights[2 * (i / dim) + 1];
    float mine[kVector], theirs[kVector];
    cuda::Load(out + i, mine);
    cuda::Load(part + i, theirs);
    LL_UNROLL
    for (int k = 0; k < kVector; ++k) mine[k] = mine[k] * keep + theirs[k] * take;
    cuda::Store(out + i, mine);
  }
}

}  // namespace

int MergeAttentionCuda(const MergeAttentionParams& p, int64_t tokens, void* stream) {
  if (tokens == 0) return 0;
  constexpr int kVector = cuda::kWidest<float>;
  const unsigned grid = static_cast<unsigned>(tokens);
  const size_t shared = 2 * sizeof(float) * static_cast<size_t>(p.heads);
  if (p.dim % kVector == 0 && cuda::Aligned16(p.out) && cuda::Aligned16(p.part)) {
    LL_LAUNCH((MergeAttentionKernel<kVector>), grid, kThreads, shared, stream, p);
  } else {
    LL_LAUNCH((MergeAttentionKernel<1>), grid, kThreads, shared, stream, p);
  }
  return cudaGetLastError();
}

}  // namespace ll
