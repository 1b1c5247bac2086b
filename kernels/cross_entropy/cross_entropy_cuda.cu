// A block a row. The maximum and the sum of exponentials come from one pass ("online softmax",
// Milakov & Gimelshein 2018); the gradient reads the row a second time, mostly from L2.
#include "kernels/common/cuda.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace ll {
namespace {

using cuda::kAllLanes;
using cuda::kWarp;

constexpr int kThreads = 512;

// sum = sum_j exp(z_j - max). Nothing yet: {-inf, 0}.
struct SoftmaxSum {
  float max, sum;
};

__device__ SoftmaxSum Merge(SoftmaxSum a, SoftmaxSum b) {
  const float max = fmaxf(a.max, b.max);
  if (max == -INFINITY) return {max, 0};
  return {max, a.sum * expf(a.max - max) + b.sum * expf(b.max - max)};
}

// Over the block, in an order that is always the same; each thread gets it.
__device__ SoftmaxSum BlockMerge(SoftmaxSum s, float* max, float* sum) {
  LL_UNROLL
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const SoftmaxSum other{__shfl_xor_sync(kAllLanes, s.max, offset),
                           __shfl_xor_sync(kAllLanes, s.sum, offset)};
    s = Merge(s, other);
  }
  if (threadIdx.x % kWarp == 0) {
    max[threadIdx.x / kWarp] = s.max;
    sum[threadIdx.x / kWarp] = s.sum;
  }
  __syncthreads();
  s = {max[0], sum[0]};
  for (int i = 1; i < kThreads / kWarp; ++i) s = Merge(s, {max[i], sum[i]});
  return s;
}

template <typename T, bool kWide>
__global__ void __launch_bounds__(kThreads) CrossEntropyKernel(const CrossEntropyParams p) {
  constexpr int kVector = cuda::kWidest<T>;
  LL_SHARED(float, max, kThreads / kWarp);
  LL_SHARED(float, sum, kThreads / kWarp);
  const int64_t row = blockIdx.x, label = p.labels[row];
  T* z = static_cast<T*>(p.logits) + row * p.vocab;
  const int64_t first = static_cast<int64_t>(threadIdx.x) * kVector, step = kThreads * kVector;
  float v[kVector];
  if (label < 0) {  // the whole block
    if (threadIdx.x == 0) p.nll[row] = 0;
    if (!p.write_grad) return;
    LL_UNROLL
    for (int k = 0; k < kVector; ++k) v[k] = 0;
    for (int64_t i = first; i < p.vocab; i += step) cuda::StoreFirst<kWide>(z + i, p.vocab - i, v);
    return;
  }
  SoftmaxSum own{-INFINITY, 0};
  for (int64_t i = first; i < p.vocab; i += step) {
    cuda::LoadFirst<kWide>(z + i, p.vocab - i, v, -INFINITY);
    float largest = v[0];
    LL_UNROLL
    for (int k = 1; k < kVector; ++k) largest = fmaxf(largest, v[k]);
    if (largest == -INFINITY) continue;
    float exponentials = 0;
    LL_UNROLL
    for (int k = 0; k < kVector; ++k) exponentials += expf(v[k] - largest);
    own = Merge(own, {largest, exponentials});
  }
  const float at_label = cuda::ToFloat(z[label]);
  // The barrier inside also keeps the label's logit from being overwritten before all have read it.
  const SoftmaxSum all = BlockMerge(own, max, sum);
  const float log_sum = all.max + logf(all.sum);
  if (threadIdx.x == 0) p.nll[row] = log_sum - at_label;
  if (!p.write_grad) return;
  for (int64_t i = first; i < p.vocab; i += step) {
    cuda::LoadFirst<kWide>(z + i, p.vocab - i, v);
    LL_UNROLL
    for (int k = 0; k < kVector; ++k) {
      // softmax - 1 in fp32: it cancels where the model is sure.
      const float softmax = expf(v[k] - log_sum);
      v[k] = p.grad_scale * (i + k == label ? softmax - 1.0f : softmax);
    }
    cuda::StoreFirst<kWide>(z + i, p.vocab - i, v);
  }
}

template <typename T>
void Launch(const CrossEntropyParams& p, int64_t rows, void* stream) {
  constexpr int kVector = cuda::kWidest<T>;
  const unsigned grid = static_cast<unsigned>(rows);
  if (p.vocab % kVector == 0 && cuda::Aligned16(p.logits)) {
    LL_LAUNCH((CrossEntropyKernel<T, true>), grid, kThreads, 0, stream, p);
  } else {
    LL_LAUNCH((CrossEntropyKernel<T, false>), grid, kThreads, 0, stream, p);
  }
}

}  // namespace

int CrossEntropyCuda(const CrossEntropyParams& p, int64_t rows, void* stream) {
  if (rows == 0) return 0;
  p.dtype == DType::kFloat32 ? Launch<float>(p, rows, stream) : Launch<BFloat16>(p, rows, stream);
  return cudaGetLastError();
}

}  // namespace ll
