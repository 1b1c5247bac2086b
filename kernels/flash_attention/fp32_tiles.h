// What the fp32 passes share (flash_forward_fp32_cpu.cc, flash_backward_fp32_cpu.cc): products of
// small matrices in registers, exponentials, masks, and rows of fp32 or bf16 that become fp32. For
// kernel sources (common/simd.h).
//
// Queries go through the keys in strips of 32 that lie in vector lanes: a score matrix is kept
// transposed, S^T = K Q^T, so that sums and factors per query need no horizontal step, and keys and
// values are used as they lie, one broadcast element at a time.
#pragma once

#include <math.h>
#include <string.h>

#include "kernels/common/simd.h"
#include "kernels/common/transpose.h"
#include "kernels/flash_attention/flash_attention.h"
#include "kernels/flash_attention/fp32_shape.h"

namespace ll::LL_SIMD {

// Products keep kTile rows of two native vectors in registers: as many as there are, less the
// operands.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kTile = 8;
#elif defined(__AVX2__)
constexpr int kWidth = 8, kTile = 4;
#else
constexpr int kWidth = 4, kTile = 4;
#endif
typedef float V __attribute__((vector_size(4 * kWidth)));

constexpr int64_t kStrip = kFp32Strip, kKeyBlock = kFp32KeyBlock;
constexpr float kLog2E = 1.44269504f;
constexpr int kGroups = kStrip / kLanes;  // vectors of simd.h in a strip

static inline int64_t MinOf(int64_t a, int64_t b) { return a < b ? a : b; }

static inline V LoadV(const float* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}

enum class Onto { kNothing, kScaled, kSum };

// C [kTile][columns] = A B, C * factor + A B with `factor` [columns], or C + A B; columns % 32 == 0
// is the row length of B [depth][columns] and of C. Element (i, d) of A lies at a[i * distance +
// d], with kColumns at a[i + d * distance].
template <bool kColumns, Onto kOnto>
static inline void Product(const float* a, int64_t distance, const float* b, int64_t depth,
                           int64_t columns, const float* factor, float* c) {
  for (int64_t lane = 0; lane < columns; lane += 2 * kWidth) {
    V sum[kTile][2];
    for (int i = 0; i < kTile; ++i) {
      for (int j = 0; j < 2; ++j) {
        const int64_t at = lane + j * kWidth;
        sum[i][j] = V{};
        if (kOnto == Onto::kScaled) sum[i][j] = LoadV(c + i * columns + at) * LoadV(factor + at);
      }
    }
    for (int64_t d = 0; d < depth; ++d) {
      const V b0 = LoadV(b + d * columns + lane), b1 = LoadV(b + d * columns + lane + kWidth);
      for (int i = 0; i < kTile; ++i) {
        const float x = kColumns ? a[d * distance + i] : a[i * distance + d];
        sum[i][0] += x * b0;
        sum[i][1] += x * b1;
      }
    }
    for (int i = 0; i < kTile; ++i) {
      for (int j = 0; j < 2; ++j) {
        float* to = c + i * columns + lane + j * kWidth;
        // Added last, so that a long sum is one of short ones and rounds less.
        if (kOnto == Onto::kSum) sum[i][j] += LoadV(to);
        memcpy(to, &sum[i][j], sizeof(V));
      }
    }
  }
}

// 2^(factor x) for x <= 0 and factor > 0, cheaper than Exp of simd.h. With n the integer nearest to
// factor x and r the rest, a polynomial of degree 6 in r with value 1 at 0 (relative error 2.2e-8,
// with rounding 2e-7; coefficients by a minimax fit on [-1/2, 1/2]) times 2^n. Below 2^-126 the
// result is 2^-126. The NaN of an invalid operation stays a NaN.
static inline F Power(F x, float factor) {
  x = Max(Splat(-126.0f / factor), x);  // in this order Max hands on a NaN
  const F magic = Splat(12582912.0f);   // as in Exp; its low nine bits are zero
  const F shifted = x * factor + magic;
  const F r = x * factor - (shifted - magic);
  F p = Splat(0x1.470b4ap-13f);
  p = p * r + 0x1.5f7276p-10f;
  p = p * r + 0x1.3b270ep-7f;
  p = p * r + 0x1.c6ae72p-5f;
  p = p * r + 0x1.ebfbe2p-3f;
  p = p * r + 0x1.62e432p-1f;
  p = p * r + 1.0f;
  return (F)((I)p + ((I)shifted << 23));
}

// All ones where a lane of group g may see key row r: lane >= first_lane + r.
static inline I Visible(int g, int64_t row) {
  const I lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lanes >= static_cast<int32_t>(row - g * kLanes);
}

// Rows of x, a multiple of 16 wide, `width` apart; zeros up to `width` and up to a whole tile.
template <typename T>
static inline void CopyRows(const T* x, int64_t stride, int64_t rows, int64_t dim, int64_t width,
                            float* to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t d = 0; d < dim; d += kLanes) Store(to + r * width + d, Load(x + r * stride + d));
    for (int64_t d = dim; d < width; d += kLanes) Store(to + r * width + d, F{});
  }
  for (int64_t r = rows; r % kTile != 0; ++r) memset(to + r * width, 0, width * sizeof(float));
}

static inline void Transpose(U x[kLanes]) {
  SwapBlocks<8>(x);
  SwapBlocks<4>(x);
  SwapBlocks<2>(x);
  SwapBlocks<1>(x);
}

// Rows of a strip -> [dim][kStrip], zeros where there is no query.
template <typename T>
static inline void TransposeIn(const T* x, int64_t stride, int64_t queries, int64_t dim,
                               float* to) {
  for (int64_t n = 0; n < kStrip; n += kLanes) {
    for (int64_t d = 0; d < dim; d += kLanes) {
      U u[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        u[i] = n + i < queries ? (U)Load(x + (n + i) * stride + d) : U{};
      }
      Transpose(u);
      for (int i = 0; i < kLanes; ++i) Store(to + (d + i) * kStrip + n, (F)u[i]);
    }
  }
}

// [dim][kStrip] times factor [kStrip] -> rows of a strip.
template <typename T>
static inline void TransposeOut(const float* x, const float* factor, int64_t queries, int64_t dim,
                                T* to, int64_t stride) {
  for (int64_t n = 0; n < queries; n += kLanes) {
    const F scale = Load(factor + n);
    const int64_t count = MinOf(kLanes, queries - n);
    for (int64_t d = 0; d < dim; d += kLanes) {
      U u[kLanes];
      for (int i = 0; i < kLanes; ++i) u[i] = (U)(Load(x + (d + i) * kStrip + n) * scale);
      Transpose(u);
      for (int64_t i = 0; i < count; ++i) Store(to + (n + i) * stride + d, (F)u[i]);
    }
  }
}

// Token `token` of head `head` of batch item `b`.
template <typename T, typename Void>
static inline T* RowOf(const AttentionView<Void>& x, int64_t b, int64_t head, int64_t token) {
  return static_cast<T*>(x.data) + b * x.batch_stride + head * x.head_stride +
         token * x.token_stride;
}

}  // namespace ll::LL_SIMD
