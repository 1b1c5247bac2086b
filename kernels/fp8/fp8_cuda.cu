// Bound by memory: 2 bytes in and 1 out an element, 1 in and 2 out, 1 in and 1 out. The same bits
// as fp8_cpu.cc: scales are powers of two, so that nothing is rounded but the code.
#include "kernels/common/cuda.h"
#include "kernels/fp8/fp8.h"

#if defined(__CUDACC__)
#include <cuda_fp8.h>
#endif

namespace ll {
namespace {

using cuda::kWarp;

constexpr int kThreads = 256;
// Elements a thread takes at a time: 16 bytes of bf16.
constexpr int kVector = 8;
constexpr int64_t kPiece = kThreads * kVector;
// Pieces of a row that its block keeps in registers; what lies behind is read again, from caches.
constexpr int kHeld = 4;
// Blocks that share a multiprocessor's registers: 64 a thread.
constexpr int kBlocks = 4;

constexpr uint32_t kSign = 0x80000000u, kInfinity = 0x7f800000u, kNan = 0x7fc00000u;
constexpr uint32_t kOne = 127, kBiasGap = 127 - 7;

union Word {
  uint32_t bits;
  float value;
};
__device__ uint32_t Bits(float value) {
  Word w;
  w.value = value;
  return w.bits;
}
__device__ float Float(uint32_t bits) {
  Word w;
  w.bits = bits;
  return w.value;
}

// Of a row whose largest magnitude has these bits (fp8_cpu.cc).
__device__ void ScaleOf(uint32_t largest, float& scale, float& inverse) {
  const uint32_t exponent = (largest + 0x1fffffu) >> 23;
  uint32_t biased = exponent > 9 ? exponent - 8 : 1;
  if (largest == 0) biased = kOne;
  const bool finite = largest < kInfinity;
  scale = Float(finite ? biased << 23 : kNan);
  inverse = Float(finite ? (2 * kOne - biased) << 23 : kNan);
}

// Of a value within 448, or NaN.
__device__ uint32_t Encode(float v) {
  const uint32_t bits = Bits(v), magnitude = bits & ~kSign;
  if (magnitude > kInfinity) return 0x7f;
  const uint32_t code =
      magnitude < ((kOne - 6) << 23)
          ? Bits(Float(magnitude) + 16384.0f) - ((kOne + 14) << 23)
          : ((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (kBiasGap << 3);
  return code | (bits & kSign) >> 24;
}

__device__ float Decode(uint32_t code) {
  const uint32_t magnitude = code & 0x7fu, sign = (code & 0x80u) << 24;
  constexpr uint32_t kSmallest = (kOne - 6) << 23;
  if (magnitude == 0x7f) return Float(kNan | sign);
  if (magnitude >= 8) return Float((magnitude << 20) + (kBiasGap << 23) | sign);
  return Float(Bits(Float((magnitude << 20) + kSmallest) - Float(kSmallest)) | sign);
}

// The codes of kVector elements, the first in the lowest byte.
__device__ uint2 EncodeAll(const float (&v)[kVector], float inverse) {
  uint32_t words[2] = {0, 0};
  LL_UNROLL
  for (int k = 0; k < kVector; k += 2) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    const uint32_t pair = __nv_cvt_float2_to_fp8x2(make_float2(v[k] * inverse, v[k + 1] * inverse),
                                                   __NV_SATFINITE, __NV_E4M3);
#else
    const uint32_t pair = Encode(v[k] * inverse) | Encode(v[k + 1] * inverse) << 8;
#endif
    words[k / 4] |= pair << (8 * (k % 4));
  }
  return {words[0], words[1]};
}

__device__ uint32_t CodeOf(uint2 codes, int k) {
  return (k < 4 ? codes.x : codes.y) >> (8 * (k % 4)) & 0xffu;
}

// Columns [i, i + kVector) of a row times their factors; zeros behind its end.
template <bool kWide>
__device__ void LoadColumns(const Fp8QuantizeParams& p, const BFloat16* x, int64_t i,
                            float (&v)[kVector]) {
  cuda::LoadFirst<kWide>(x + i, p.width - i, v);
  if (p.factors == nullptr) return;
  float factors[kVector];
  cuda::LoadFirst<kWide>(p.factors + i, p.width - i, factors);
  LL_UNROLL
  for (int k = 0; k < kVector; ++k) v[k] *= factors[k];
}

template <bool kWide>
__device__ void StoreCodes(uint8_t* to, int64_t left, uint2 codes) {
  if constexpr (kWide) {
    *reinterpret_cast<uint2*>(to) = codes;
  } else {
    LL_UNROLL
    for (int k = 0; k < kVector; ++k) {
      if (k < left) to[k] = static_cast<uint8_t>(CodeOf(codes, k));
    }
  }
}

// Magnitudes compare as their bits do.
__device__ uint32_t LargestOf(const float (&v)[kVector], uint32_t largest) {
  LL_UNROLL
  for (int k = 0; k < kVector; ++k) {
    const uint32_t magnitude = Bits(v[k]) & ~kSign;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

__device__ uint32_t BlockLargest(uint32_t largest, uint32_t* shared) {
  LL_UNROLL
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const uint32_t other = __shfl_xor_sync(cuda::kAllLanes, largest, offset);
    largest = other > largest ? other : largest;
  }
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = largest;
  __syncthreads();
  LL_UNROLL
  for (int i = 0; i < kThreads / kWarp; ++i) largest = shared[i] > largest ? shared[i] : largest;
  return largest;
}

// A block a row.
template <bool kWide>
__global__ void __launch_bounds__(kThreads, kBlocks) QuantizeKernel(const Fp8QuantizeParams p) {
  LL_SHARED(uint32_t, shared, kThreads / kWarp);
  const int64_t row = blockIdx.x;
  const BFloat16* x = p.x + row * p.x_stride;
  uint8_t* codes = p.codes + row * p.width;
  const int64_t first = static_cast<int64_t>(threadIdx.x) * kVector, rest = first + kHeld * kPiece;
  float held[kHeld][kVector], v[kVector];
  uint32_t largest = 0;
  LL_UNROLL
  for (int h = 0; h < kHeld; ++h) {
    if (first + h * kPiece < p.width) {
      LoadColumns<kWide>(p, x, first + h * kPiece, held[h]);
      largest = LargestOf(held[h], largest);
    }
  }
  for (int64_t i = rest; i < p.width; i += kPiece) {
    LoadColumns<kWide>(p, x, i, v);
    largest = LargestOf(v, largest);
  }
  largest = BlockLargest(largest, shared);
  float scale, inverse;
  ScaleOf(largest, scale, inverse);
  if (threadIdx.x == 0) p.scales[row] = scale;
  LL_UNROLL
  for (int h = 0; h < kHeld; ++h) {
    const int64_t i = first + h * kPiece;
    if (i < p.width) StoreCodes<kWide>(codes + i, p.width - i, EncodeAll(held[h], inverse));
  }
  for (int64_t i = rest; i < p.width; i += kPiece) {
    LoadColumns<kWide>(p, x, i, v);
    StoreCodes<kWide>(codes + i, p.width - i, EncodeAll(v, inverse));
  }
}

// A block a row.
template <bool kWide>
__global__ void __launch_bounds__(kThreads) DequantizeKernel(const Fp8DequantizeParams p) {
  const int64_t row = blockIdx.x;
  const float scale = p.scales[row];
  const uint8_t* codes = p.codes + row * p.width;
  BFloat16* y = p.y + row * p.width;
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * kVector; i < p.width; i += kPiece) {
    const int64_t left = p.width - i;
    float v[kVector];
    if constexpr (kWide) {
      const uint2 raw = *reinterpret_cast<const uint2*>(codes + i);
      LL_UNROLL
      for (int k = 0; k < kVector; ++k) v[k] = Decode(CodeOf(raw, k)) * scale;
    } else {
      LL_UNROLL
      for (int k = 0; k < kVector; ++k) v[k] = k < left ? Decode(codes[i + k]) * scale : 0.0f;
    }
    if (p.factors != nullptr) {
      float factors[kVector];
      cuda::LoadFirst<kWide>(p.factors + i, left, factors, 1.0f);
      LL_UNROLL
      for (int k = 0; k < kVector; ++k) v[k] /= factors[k];
    }
    cuda::StoreFirst<kWide>(y + i, left, v);
  }
}

// Of bytes in a row of a tile, and of words from one row to the next: an odd number, so that the
// rows of a column lie in different banks.
constexpr int kTile = static_cast<int>(kFp8TransposeRows), kAccess = 16, kRowWords = kTile / 4 + 1;
static_assert(kTile / kAccess * kTile == kThreads, "a thread has one access of a tile");

// A block a tile of 64 x 64 bytes, read and written 16 bytes a thread.
template <bool kWide>
__global__ void __launch_bounds__(kThreads) TransposeKernel(const Fp8TransposeParams p) {
  LL_SHARED(uint32_t, tile, kTile * kRowWords);
  uint8_t* bytes = reinterpret_cast<uint8_t*>(tile);
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kTile,
                first_column = static_cast<int64_t>(blockIdx.y) * kTile;
  const int line = static_cast<int>(threadIdx.x) / (kTile / kAccess),
            offset = static_cast<int>(threadIdx.x) % (kTile / kAccess) * kAccess;
  union Access {
    uint8_t byte[kAccess];
    uint32_t word[kAccess / 4];
    uint4 whole;
  } access;
  const int64_t row = first_row + line, from = first_column + offset;
  if (row < p.rows) {
    const uint8_t* x = p.x + row * p.columns + from;
    if constexpr (kWide) {
      if (from < p.columns) access.whole = *reinterpret_cast<const uint4*>(x);
    } else {
      LL_UNROLL
      for (int k = 0; k < kAccess; ++k) access.byte[k] = from + k < p.columns ? x[k] : 0;
    }
    LL_UNROLL
    for (int k = 0; k < kAccess / 4; ++k) tile[line * kRowWords + offset / 4 + k] = access.word[k];
  }
  __syncthreads();
  const int64_t column = first_column + line, to = first_row + offset;
  if (column >= p.columns) return;
  LL_UNROLL
  for (int k = 0; k < kAccess; ++k) access.byte[k] = bytes[(offset + k) * kRowWords * 4 + line];
  uint8_t* y = p.y + column * p.rows + to;
  if constexpr (kWide) {
    if (to < p.rows) *reinterpret_cast<uint4*>(y) = access.whole;
  } else {
    LL_UNROLL
    for (int k = 0; k < kAccess; ++k) {
      if (to + k < p.rows) y[k] = access.byte[k];
    }
  }
}

bool Aligned8(const void* p) { return reinterpret_cast<uintptr_t>(p) % 8 == 0; }

}  // namespace

int Fp8QuantizeCuda(const Fp8QuantizeParams& p, int64_t rows, void* stream) {
  if (rows == 0) return 0;
  const bool wide = p.width % kVector == 0 && p.x_stride % kVector == 0 && cuda::Aligned16(p.x) &&
                    cuda::Aligned16(p.factors) && Aligned8(p.codes);
  const unsigned grid = static_cast<unsigned>(rows);
  if (wide) {
    LL_LAUNCH(QuantizeKernel<true>, grid, kThreads, 0, stream, p);
  } else {
    LL_LAUNCH(QuantizeKernel<false>, grid, kThreads, 0, stream, p);
  }
  return cudaGetLastError();
}

int Fp8DequantizeCuda(const Fp8DequantizeParams& p, int64_t rows, void* stream) {
  if (rows == 0) return 0;
  const bool wide = p.width % kVector == 0 && Aligned8(p.codes) && cuda::Aligned16(p.factors) &&
                    cuda::Aligned16(p.y);
  const unsigned grid = static_cast<unsigned>(rows);
  if (wide) {
    LL_LAUNCH(DequantizeKernel<true>, grid, kThreads, 0, stream, p);
  } else {
    LL_LAUNCH(DequantizeKernel<false>, grid, kThreads, 0, stream, p);
  }
  return cudaGetLastError();
}

int Fp8TransposeCuda(const Fp8TransposeParams& p, int64_t groups, void* stream) {
  if (groups == 0 || p.columns == 0) return 0;
  const dim3 grid(static_cast<unsigned>(groups), cuda::Blocks(p.columns, kTile));
  const bool wide = p.rows % kAccess == 0 && p.columns % kAccess == 0 && cuda::Aligned16(p.x) &&
                    cuda::Aligned16(p.y);
  if (wide) {
    LL_LAUNCH(TransposeKernel<true>, grid, kThreads, 0, stream, p);
  } else {
    LL_LAUNCH(TransposeKernel<false>, grid, kThreads, 0, stream, p);
  }
  return cudaGetLastError();
}

}  // namespace ll
