// A warp shares a short row (heads), a block a long one. Rows are read twice; the second time from
// the caches, since the threads that read them have just done so.
#include "kernels/common/cuda.h"
#include "kernels/rms_norm/rms_norm.h"

namespace ll {
namespace {

using cuda::GroupSum;
using cuda::kWarp;
using cuda::LoadFirst;
using cuda::StoreFirst;

constexpr int kThreads = 256;
// Rows up to this many elements belong to a warp.
constexpr int64_t kShortRow = 1024;

__device__ int64_t Offset(const RmsNormRows& rows, int64_t row, int64_t width) {
  return rows.heads == 1 ? row * rows.token_stride
                         : row / rows.heads * rows.token_stride + row % rows.heads * width;
}

template <typename T, bool kWide, int kGroup>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const RmsNormForwardParams p, const int64_t rows) {
  constexpr int kVector = cuda::kWidest<T>;
  LL_SHARED(float, sums, kThreads / kWarp);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / kGroup) + threadIdx.x / kGroup;
  if (row >= rows) return;  // a whole warp; a block that shares a row always has one
  const T* x = static_cast<const T*>(p.x) + Offset(p.x_rows, row, p.width);
  T* y = static_cast<T*>(p.y) + Offset(p.y_rows, row, p.width);
  const int64_t first = static_cast<int64_t>(threadIdx.x % kGroup) * kVector;
  float sum = 0, v[kVector], w[kVector];
  for (int64_t i = first; i < p.width; i += kGroup * kVector) {
    LoadFirst<kWide>(x + i, p.width - i, v);
    LL_UNROLL
    for (int k = 0; k < kVector; ++k) sum += v[k] * v[k];
  }
  sum = GroupSum<kGroup>(sum, sums);
  const float rstd = 1.0f / sqrtf(sum / static_cast<float>(p.width) + p.eps);
  if (threadIdx.x % kGroup == 0) p.rstd[row] = rstd;
  for (int64_t i = first; i < p.width; i += kGroup * kVector) {
    LoadFirst<kWide>(x + i, p.width - i, v);
    LoadFirst<kWide>(p.w + i, p.width - i, w);
    LL_UNROLL
    for (int k = 0; k < kVector; ++k) v[k] = v[k] * rstd * w[k];
    StoreFirst<kWide>(y + i, p.width - i, v);
  }
}

// Where a group keeps the k-th of the kVector columns that begin at `piece` of the thread `lane`:
// beside its neighbours' k-th, so that a warp meets 32 banks.
template <int kVector, int kGroup>
__device__ int64_t DwIndex(int64_t piece, int lane, int k) {
  return piece + k * kGroup + lane;
}

// Floats of dw a group keeps: whole pieces of all its threads.
template <int kVector, int kGroup>
__host__ __device__ int64_t DwFloats(int64_t width) {
  constexpr int64_t kPiece = kGroup * kVector;
  return (width + kPiece - 1) / kPiece * kPiece;
}

// One block for block_rows rows, which its groups take in turn; each group sums dw over its own
// rows, in shared memory where a thread always meets the same columns, and the groups' sums are
// added in order at the end.
template <typename T, bool kWide, int kGroup>
__global__ void __launch_bounds__(kThreads) BackwardKernel(const RmsNormBackwardParams p) {
  constexpr int kVector = cuda::kWidest<T>;
  constexpr int kGroups = kThreads / kGroup;
  LL_SHARED(float, sums, kThreads / kWarp);
  LL_DYNAMIC_SHARED(float, dw);  // [kGroups, DwFloats], if dw is wanted
  constexpr int64_t kPiece = kGroup * kVector;
  const int group = static_cast<int>(threadIdx.x) / kGroup;
  const int lane = static_cast<int>(threadIdx.x) % kGroup;
  const int64_t first = static_cast<int64_t>(lane) * kVector;
  const int64_t dw_floats = DwFloats<kVector, kGroup>(p.width);
  float* own_dw = dw + group * dw_floats;
  if (p.dw_blocks != nullptr) {
    for (int64_t i = lane; i < dw_floats; i += kGroup) own_dw[i] = 0;
    __syncthreads();
  }
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * p.block_rows;
  const int64_t end = begin + p.block_rows < p.rows ? begin + p.block_rows : p.rows;
  for (int64_t row = begin + group; row < end; row += kGroups) {
    const T* dy = static_cast<const T*>(p.dy) + Offset(p.dy_rows, row, p.width);
    const T* x = static_cast<const T*>(p.x) + Offset(p.x_rows, row, p.width);
    T* dx = static_cast<T*>(p.dx) + Offset(p.dx_rows, row, p.width);
    const float rstd = p.rstd[row];
    float dot = 0, d[kVector], v[kVector], w[kVector], before[kVector];
    for (int64_t i = first; i < p.width; i += kPiece) {
      LoadFirst<kWide>(dy + i, p.width - i, d);
      LoadFirst<kWide>(x + i, p.width - i, v);
      LoadFirst<kWide>(p.w + i, p.width - i, w);
      LL_UNROLL
      for (int k = 0; k < kVector; ++k) dot += d[k] * w[k] * v[k];
    }
    dot = GroupSum<kGroup>(dot, sums);
    const float c = dot * rstd * rstd / static_cast<float>(p.width);  // mean(g * xhat) * rstd
    for (int64_t i = first; i < p.width; i += kPiece) {
      LoadFirst<kWide>(dy + i, p.width - i, d);
      LoadFirst<kWide>(x + i, p.width - i, v);
      LoadFirst<kWide>(p.w + i, p.width - i, w);
      if (p.accumulate) LoadFirst<kWide>(dx + i, p.width - i, before);
      LL_UNROLL
      for (int k = 0; k < kVector; ++k) {
        if (p.dw_blocks != nullptr)
          own_dw[DwIndex<kVector, kGroup>(i - first, lane, k)] += d[k] * v[k] * rstd;
        d[k] = rstd * (d[k] * w[k] - v[k] * c) + (p.accumulate ? before[k] : 0.0f);
      }
      StoreFirst<kWide>(dx + i, p.width - i, d);
    }
  }
  if (p.dw_blocks == nullptr) return;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < p.width; i += kThreads) {
    const int64_t piece = i / kPiece * kPiece;
    const int owner = static_cast<int>(i - piece) / kVector;
    const int64_t index =
        DwIndex<kVector, kGroup>(piece, owner, static_cast<int>(i - piece) % kVector);
    float sum = 0;
    LL_UNROLL
    for (int g = 0; g < kGroups; ++g) sum += dw[g * dw_floats + index];
    p.dw_blocks[static_cast<int64_t>(blockIdx.x) * p.width + i] = sum;
  }
}

// Whether rows can be read 16 bytes at a time.
bool Wide(int64_t width, int64_t vector, const RmsNormRows& rows, const void* p) {
  return width % vector == 0 && rows.token_stride % vector == 0 && cuda::Aligned16(p);
}

template <typename T, bool kWide>
void LaunchForward(const RmsNormForwardParams& p, int64_t rows, void* stream) {
  if (p.width <= kShortRow) {
    LL_LAUNCH((ForwardKernel<T, kWide, kWarp>), cuda::Blocks(rows, kThreads / kWarp), kThreads, 0,
              stream, p, rows);
  } else {
    LL_LAUNCH((ForwardKernel<T, kWide, kThreads>), static_cast<unsigned>(rows), kThreads, 0, stream,
              p, rows);
  }
}

template <typename T, bool kWide>
void LaunchBackward(const RmsNormBackwardParams& p, int64_t blocks, void* stream) {
  const unsigned grid = static_cast<unsigned>(blocks);
  constexpr int kVector = cuda::kWidest<T>;
  const bool short_rows = p.width <= kShortRow;
  const int64_t floats = short_rows ? kThreads / kWarp * DwFloats<kVector, kWarp>(p.width)
                                    : DwFloats<kVector, kThreads>(p.width);
  const size_t bytes = p.dw_blocks == nullptr ? 0 : static_cast<size_t>(floats) * sizeof(float);
  cuda::AllowShared(
      short_rows ? BackwardKernel<T, kWide, kWarp> : BackwardKernel<T, kWide, kThreads>, bytes);
  if (short_rows) {
    LL_LAUNCH((BackwardKernel<T, kWide, kWarp>), grid, kThreads, bytes, stream, p);
  } else {
    LL_LAUNCH((BackwardKernel<T, kWide, kThreads>), grid, kThreads, bytes, stream, p);
  }
}

template <typename T>
void Forward(const RmsNormForwardParams& p, int64_t rows, void* stream) {
  constexpr int kVector = cuda::kWidest<T>;
  if (Wide(p.width, kVector, p.x_rows, p.x) && Wide(p.width, kVector, p.y_rows, p.y) &&
      cuda::Aligned16(p.w)) {
    LaunchForward<T, true>(p, rows, stream);
  } else {
    LaunchForward<T, false>(p, rows, stream);
  }
}

template <typename T>
void Backward(const RmsNormBackwardParams& p, int64_t blocks, void* stream) {
  constexpr int kVector = cuda::kWidest<T>;
  if (Wide(p.width, kVector, p.x_rows, p.x) && Wide(p.width, kVector, p.dy_rows, p.dy) &&
      Wide(p.width, kVector, p.dx_rows, p.dx) && cuda::Aligned16(p.w)) {
    LaunchBackward<T, true>(p, blocks, stream);
  } else {
    LaunchBackward<T, false>(p, blocks, stream);
  }
}

}  // namespace

int RmsNormForwardCuda(const RmsNormForwardParams& p, int64_t rows, void* stream) {
  if (rows == 0) return 0;
  p.dtype == DType::kFloat32 ? Forward<float>(p, rows, stream) : Forward<BFloat16>(p, rows, stream);
  return cudaGetLastError();
}

int RmsNormBackwardCuda(const RmsNormBackwardParams& p, int64_t blocks, void* stream) {
  if (blocks == 0) return 0;
  p.dtype == DType::kFloat32 ? Backward<float>(p, blocks, stream)
                             : Backward<BFloat16>(p, blocks, stream);
  return cudaGetLastError();
}

}  // namespace ll
