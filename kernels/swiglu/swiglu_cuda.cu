// Bound by memory; a thread has one vector of a row.
#include "kernels/common/cuda.h"
#include "kernels/swiglu/swiglu.h"

namespace ll {
namespace {

constexpr int kThreads = 256;

__device__ float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ int64_t Column(int vector) {
  return (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * vector;
}

template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads) ForwardKernel(const SwigluForwardParams p) {
  const int64_t i = Column(kVector), row = blockIdx.x;
  if (i >= p.width) return;
  const T* gate = static_cast<const T*>(p.gate_up) + row * 2 * p.width + i;
  float g[kVector], u[kVector];
  cuda::Load(gate, g);
  cuda::Load(gate + p.width, u);
  LL_UNROLL
  for (int k = 0; k < kVector; ++k) g[k] = g[k] * Sigmoid(g[k]) * u[k];
  cuda::Store(static_cast<T*>(p.out) + row * p.width + i, g);
}

template <typename T, int kVector>
__global__ void __launch_bounds__(kThreads) BackwardKernel(const SwigluBackwardParams p) {
  const int64_t i = Column(kVector), row = blockIdx.x;
  if (i >= p.width) return;
  T* gate = static_cast<T*>(p.gate_up) + row * 2 * p.width + i;
  float g[kVector], u[kVector], d[kVector];
  cuda::Load(gate, g);
  cuda::Load(gate + p.width, u);
  cuda::Load(static_cast<const T*>(p.dout) + row * p.width + i, d);
  LL_UNROLL
  for (int k = 0; k < kVector; ++k) {
    const float s = Sigmoid(g[k]), up = u[k];
    u[k] = d[k] * g[k] * s;
    g[k] = d[k] * up * s * (1.0f + g[k] * (1.0f - s));
  }
  cuda::Store(gate, g);
  cuda::Store(gate + p.width, u);
}

template <int kVector>
dim3 Grid(int64_t rows, int64_t width) {
  return dim3(static_cast<unsigned>(rows), cuda::Blocks(width, kThreads * kVector));
}

template <typename T>
void Forward(const SwigluForwardParams& p, int64_t rows, void* stream) {
  constexpr int kVector = cuda::kWidest<T>;
  if (p.width % kVector == 0 && cuda::Aligned16(p.gate_up) && cuda::Aligned16(p.out)) {
    LL_LAUNCH((ForwardKernel<T, kVector>), Grid<kVector>(rows, p.width), kThreads, 0, stream, p);
  } else {
    LL_LAUNCH((ForwardKernel<T, 1>), Grid<1>(rows, p.width), kThreads, 0, stream, p);
  }
}

template <typename T>
void Backward(const SwigluBackwardParams& p, int64_t rows, void* stream) {
  constexpr int kVector = cuda::kWidest<T>;
  if (p.width % kVector == 0 && cuda::Aligned16(p.gate_up) && cuda::Aligned16(p.dout)) {
    LL_LAUNCH((BackwardKernel<T, kVector>), Grid<kVector>(rows, p.width), kThreads, 0, stream, p);
  } else {
    LL_LAUNCH((BackwardKernel<T, 1>), Grid<1>(rows, p.width), kThreads, 0, stream, p);
  }
}

}  // namespace

int SwigluForwardCuda(const SwigluForwardParams& p, int64_t rows, void* stream) {
  if (rows == 0) return 0;
  p.dtype == DType::kFloat32 ? Forward<float>(p, rows, stream) : Forward<BFloat16>(p, rows, stream);
  return cudaGetLastError();
}

int SwigluBackwardCuda(const SwigluBackwardParams& p, int64_t rows, void* stream) {
  if (rows == 0) return 0;
  p.dtype == DType::kFloat32 ? Backward<float>(p, rows, stream)
                             : Backward<BFloat16>(p, rows, stream);
  return cudaGetLastError();
}

}  // namespace ll
