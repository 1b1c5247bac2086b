// AMX tiles and the packing of bf16 matrices into them. Included only by sources compiled for
// AVX-512 and AMX, so (as common/simd.h explains) it includes plain C headers alone and everything
// in it is static.
//
// A product C += A B of one instruction: A is 16 x 32 bf16, B 32 x 16 bf16, C 16 x 16 fp32. In
// memory a tile is 1 KiB, 16 rows of 64 bytes:
//   A form: row i holds A[i][0..31].
//   B form: row r holds the pairs (B[2r][n], B[2r+1][n]) for n = 0..15.
// Hence for a matrix X of rows (tokens) by features: 16 tokens x 32 features are an A form as they
// lie; its transpose as 16 x 16 words of 32 bits is the B form of X^T. 32 tokens x 16 features with
// neighbouring rows interleaved are the B form of X, and the same word transpose of that is the A
// form of X^T.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernels/common/dtype.h"

// The compiler's own intrinsics do not say that a tile load reads memory; these do, so no store is
// moved past one.
#define LL_TILE_LOAD(tile, pointer)                                   \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(pointer), \
                   "r"(static_cast<int64_t>(64))                      \
                   : "memory")
#define LL_TILE_STORE(tile, pointer)                                      \
  __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(pointer), \
                   "r"(static_cast<int64_t>(64))                          \
                   : "memory")
#define LL_TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile ::)
// c += a b
#define LL_TILE_DOT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)

namespace ll {

static constexpr int64_t kTileBytes = 1024;
static constexpr int64_t kTileRows = 16;
static constexpr int64_t kTileDepth = 32;  // bf16 elements of an A row

static inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t MinOf(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t MaxOf(int64_t a, int64_t b) { return a > b ? a : b; }

// All eight tiles 16 x 64 bytes, until ReleaseTiles; per thread.
static inline void ConfigureTiles() {
  struct {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
}
static inline void ReleaseTiles() { __asm__ volatile("tilerelease" ::); }

// Tiles 0..3 = the 2 x 2 product of A tiles a0, a1 and B tiles b0, b1 added up over `depth` steps
// of the given byte distances: 0 = a0 b0, 1 = a0 b1, 2 = a1 b0, 3 = a1 b1.
static inline void Dot2x2(const char* a0, const char* a1, int64_t a_step, const char* b0,
                          const char* b1, int64_t b_step, int64_t depth) {
  for (int64_t i = 0; i < depth; ++i) {
    LL_TILE_LOAD(4, a0);
    LL_TILE_LOAD(6, b0);
    LL_TILE_DOT(0, 4, 6);
    LL_TILE_LOAD(7, b1);
    LL_TILE_DOT(1, 4, 7);
    LL_TILE_LOAD(5, a1);
    LL_TILE_DOT(2, 5, 6);
    LL_TILE_DOT(3, 5, 7);
    a0 += a_step;
    a1 += a_step;
    b0 += b_step;
    b1 += b_step;
  }
}
static inline void Zero2x2() {
  LL_TILE_ZERO(0);
  LL_TILE_ZERO(1);
  LL_TILE_ZERO(2);
  LL_TILE_ZERO(3);
}
static inline void Load2x2(const float* c0, const float* c1, const float* c2, const float* c3) {
  LL_TILE_LOAD(0, c0);
  LL_TILE_LOAD(1, c1);
  LL_TILE_LOAD(2, c2);
  LL_TILE_LOAD(3, c3);
}
static inline void Store2x2(float* c0, float* c1, float* c2, float* c3) {
  LL_TILE_STORE(0, c0);
  LL_TILE_STORE(1, c1);
  LL_TILE_STORE(2, c2);
  LL_TILE_STORE(3, c3);
}

// Transposes 16 x 16 words of 32 bits.
__attribute__((always_inline)) static inline void Transpose(__m512i x[16]) {
  __m512i y[16];
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
  }
  // x[4 g + j], lane l: rows 4 g .. 4 g + 3 of column 4 l + j.
  for (int j = 0; j < 4; ++j) {
    y[j] = _mm512_shuffle_i32x4(x[j], x[4 + j], 0x88);
    y[4 + j] = _mm512_shuffle_i32x4(x[j], x[4 + j], 0xdd);
    y[8 + j] = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0x88);
    y[12 + j] = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0xdd);
  }
  for (int j = 0; j < 4; ++j) {
    x[j] = _mm512_shuffle_i32x4(y[j], y[8 + j], 0x88);
    x[8 + j] = _mm512_shuffle_i32x4(y[j], y[8 + j], 0xdd);
    x[4 + j] = _mm512_shuffle_i32x4(y[4 + j], y[12 + j], 0x88);
    x[12 + j] = _mm512_shuffle_i32x4(y[4 + j], y[12 + j], 0xdd);
  }
}

static inline uint32_t LowBits(int64_t n) {
  return n >= 32 ? 0xffffffffu : n <= 0 ? 0u : (1u << n) - 1u;
}

// The packers below read `rows` rows and `columns` columns of the matrix at x (row distance
// `stride` elements) and fill the rest of the tile with zeros; they read nothing outside.

__attribute__((always_inline)) static inline void LoadRows(const BFloat16* x, int64_t stride,
                                                           int64_t rows, int64_t columns,
                                                           __m512i tile[16]) {
  const __mmask32 mask = LowBits(columns);
  for (int i = 0; i < 16; ++i) {
    tile[i] = i < rows ? _mm512_maskz_loadu_epi16(mask, x + i * stride) : _mm512_setzero_si512();
  }
}
__attribute__((always_inline)) static inline void LoadRowPairs(const BFloat16* x, int64_t stride,
                                                               int64_t rows, int64_t columns,
                                                               __m512i tile[16]) {
  const __mmask16 mask = static_cast<__mmask16>(LowBits(columns) & 0xffffu);
  for (int i = 0; i < 16; ++i) {
    const __m256i none = _mm256_setzero_si256();
    const __m256i even = 2 * i < rows ? _mm256_maskz_loadu_epi16(mask, x + 2 * i * stride) : none;
    const __m256i odd =
        2 * i + 1 < rows ? _mm256_maskz_loadu_epi16(mask, x + (2 * i + 1) * stride) : none;
    tile[i] = _mm512_or_si512(_mm512_cvtepu16_epi32(even),
                              _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
  }
}
__attribute__((always_inline)) static inline void StoreTile(char* to, const __m512i tile[16]) {
  for (int i = 0; i < 16; ++i) _mm512_store_si512(to + 64 * i, tile[i]);
}

// A form of x, 16 rows x 32 columns; with `transposed` (may be null) also the B form of its
// transpose.
static inline void PackRows(const BFloat16* x, int64_t stride, int64_t rows, int64_t columns,
                            char* plain, char* transposed) {
  __m512i tile[16];
  LoadRows(x, stride, rows, columns, tile);
  if (plain != nullptr) StoreTile(plain, tile);
  if (transposed == nullptr) return;
  Transpose(tile);
  StoreTile(transposed, tile);
}
// B form of x, 32 rows x 16 columns, and the A form of its transpose; either may be null.
static inline void PackRowPairs(const BFloat16* x, int64_t stride, int64_t rows, int64_t columns,
                                char* plain, char* transposed) {
  __m512i tile[16];
  LoadRowPairs(x, stride, rows, columns, tile);
  if (plain != nullptr) StoreTile(plain, tile);
  if (transposed == nullptr) return;
  Transpose(tile);
  StoreTile(transposed, tile);
}

// Asks for rows [begin, end) of x ahead of their use. Rows of a head lie far apart, which the CPU's
// own prefetcher does not follow.
static inline void PrefetchRows(const BFloat16* x, int64_t stride, int64_t begin, int64_t end,
                                int64_t columns) {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t c = 0; c < columns; c += kTileDepth) {
      _mm_prefetch(reinterpret_cast<const char*>(x + i * stride + c), _MM_HINT_T0);
    }
  }
}
static constexpr int64_t kPrefetchRows = 64;  // how far ahead of a packer

// Rows [begin, end) of x in 16 x 32 tiles [row tile][column chunk] up to a multiple of 32 rows; see
// PackRows.
static inline void PackAllRows(const BFloat16* x, int64_t stride, int64_t rows, int64_t columns,
                               char* plain, char* transposed) {
  const int64_t chunks = CeilDiv(columns, kTileDepth), tiles = 2 * CeilDiv(rows, 2 * kTileRows);
  PrefetchRows(x, stride, 0, MinOf(kPrefetchRows, rows), columns);
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t ahead = t * kTileRows + kPrefetchRows;
    PrefetchRows(x, stride, ahead, MinOf(ahead + kTileRows, rows), columns);
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t at = (t * chunks + c) * kTileBytes;
      PackRows(x + t * kTileRows * stride + c * kTileDepth, stride, MaxOf(rows - t * kTileRows, 0),
               columns - c * kTileDepth, plain == nullptr ? nullptr : plain + at,
               transposed == nullptr ? nullptr : transposed + at);
    }
  }
}
// Rows of x in 32 x 16 tiles [row chunk][column tile], columns up to a multiple of 32; see
// PackRowPairs.
static inline void PackAllRowPairs(const BFloat16* x, int64_t stride, int64_t rows, int64_t columns,
                                   char* plain, char* transposed) {
  const int64_t tiles = 2 * CeilDiv(columns, kTileDepth), chunks = CeilDiv(rows, kTileDepth);
  PrefetchRows(x, stride, 0, MinOf(kPrefetchRows, rows), columns);
  for (int64_t c = 0; c < chunks; ++c) {
    const int64_t ahead = c * kTileDepth + kPrefetchRows;
    PrefetchRows(x, stride, ahead, MinOf(ahead + kTileDepth, rows), columns);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t at = (c * tiles + t) * kTileBytes;
      PackRowPairs(x + c * kTileDepth * stride + t * kTileRows, stride, rows - c * kTileDepth,
                   columns - t * kTileRows, plain == nullptr ? nullptr : plain + at,
                   transposed == nullptr ? nullptr : transposed + at);
    }
  }
}

// 2^x: with r = x - floor(x), a polynomial of degree 5 in r with value 1 at 0 (relative error
// 8e-8, 1.6e-7 with rounding: below 2 ulp; coefficients by a minimax fit on [0, 1)) times
// 2^floor(x). 0 for -inf and below the range.
static inline __m512 Exp2(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, 0x09);  // 9: no scaling, floor, no exceptions
  __m512 p = _mm512_set1_ps(0x1.e974fap-10f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.277856p-7f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c91ce6p-5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebdb56p-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e4bap-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);
}

// ln(x) for normal x > 0: x = 2^e m, m in [0.75, 1.5), ln m = 2 artanh((m - 1) / (m + 1)); |t| <=
// 0.2, so the cut series is below 1e-8.
static inline __m512 Log(__m512 x) {
  const __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
  const __m512 e = _mm512_getexp_ps(_mm512_div_ps(x, m));  // x / m is 2^e exactly
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 t = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one));
  const __m512 t2 = _mm512_mul_ps(t, t);
  __m512 p = _mm512_set1_ps(2.0f / 9);
  p = _mm512_fmadd_ps(p, t2, _mm512_set1_ps(2.0f / 7));
  p = _mm512_fmadd_ps(p, t2, _mm512_set1_ps(2.0f / 5));
  p = _mm512_fmadd_ps(p, t2, _mm512_set1_ps(2.0f / 3));
  p = _mm512_fmadd_ps(p, t2, _mm512_set1_ps(2.0f));
  return _mm512_fmadd_ps(e, _mm512_set1_ps(0.693147181f), _mm512_mul_ps(p, t));
}

// Queries of a strip of 32: lanes 0..15 of the two vectors are queries 0..15 and 16..31. Where
// pairs of keys are interleaved (InterleaveKeys) they come out in another order: lane n of tile i
// is query StripQuery(i, n).
static inline int64_t StripQuery(int64_t i, int64_t n) { return 8 * (n >> 2) + (n & 3) + 4 * i; }

// A lane vector of 32 queries in strip order -> in the order of interleaved tile i.
static inline __m512 InStripOrder(int i, __m512 low, __m512 high) {
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
  return _mm512_permutex2var_ps(low, _mm512_add_epi32(first, _mm512_set1_epi32(4 * i)), high);
}

// even, odd: 32 queries of keys 2 r and 2 r + 1. Row r of B forms over keys: queries in StripQuery
// order.
static inline void InterleaveKeys(__m512i even, __m512i odd, char* tile0, char* tile1) {
  _mm512_store_si512(tile0, _mm512_unpacklo_epi16(even, odd));
  _mm512_store_si512(tile1, _mm512_unpackhi_epi16(even, odd));
}

static inline __m512i ToBFloat16(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}
static inline void StoreBFloat16(BFloat16* to, __m512 x, __mmask16 mask) {
  _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(x));
}
// The same for either type of a result.
static inline void StoreRow(BFloat16* to, __m512 x, __mmask16 mask) { StoreBFloat16(to, x, mask); }
static inline void StoreRow(float* to, __m512 x, __mmask16 mask) {
  _mm512_mask_storeu_ps(to, mask, x);
}
static inline __m512 LoadBFloat16(const BFloat16* from, __mmask16 mask) {
  return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16);
}
static inline __m512 LoadRow(const BFloat16* from) { return LoadBFloat16(from, 0xffff); }
static inline __m512 LoadRow(const float* from) { return _mm512_loadu_ps(from); }

// Lanes (queries first_query .. + 15) that may see key `key`: query + offset >= key, key < keys.
static inline __mmask16 Visible(int64_t key, int64_t keys, int64_t first_query, int64_t offset) {
  const int64_t hidden = key >= keys ? 16 : MinOf(MaxOf(key - offset - first_query, 0), 16);
  return static_cast<__mmask16>(0xffffu << hidden);
}

// Writes rows of a [queries, columns] matrix from its transpose in C tiles: tiles[i] for i = 0, 1
// holds 16 columns x 16 queries in StripQuery order. Multiplies by factor first. Queries >=
// `queries` are left out.
template <typename T>
static inline void StoreTransposed(const float* tiles, __m512 factor0, __m512 factor1, T* to,
                                   int64_t stride, int64_t queries, int64_t columns) {
  const __mmask16 mask = static_cast<__mmask16>(LowBits(MinOf(columns, 16)));
  for (int i = 0; i < 2; ++i) {
    const __m512 factor = i == 0 ? factor0 : factor1;
    __m512i x[16];
    for (int r = 0; r < 16; ++r) {
      x[r] = (__m512i)_mm512_mul_ps(_mm512_load_ps(tiles + 256 * i + 16 * r), factor);
    }
    Transpose(x);
    for (int n = 0; n < 16; ++n) {
      const int64_t query = StripQuery(i, n);
      if (query < queries) StoreRow(to + query * stride, (__m512)x[n], mask);
    }
  }
}

}  // namespace ll
