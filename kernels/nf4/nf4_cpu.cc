// Compiled without contraction to fused multiply-adds: bytes must equal bitsandbytes'.
#include "kernels/nf4/nf4.h"

#include "kernels/common/transpose.h"

#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

namespace ll::LL_SIMD {
namespace {

typedef uint8_t B __attribute__((vector_size(16)));

inline I WidenBytes(const uint8_t* p) {
#if defined(__AVX512BW__)
  // Written out because the compiler takes the vector expression apart.
  return (I)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  B bytes;
  std::memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(bytes, I);
#endif
}

inline I Nibbles(const uint8_t* p, bool high) {
  const I wide = WidenBytes(p);
  return high ? wide >> 4 : wide & 15;
}

inline F Magnitude(F v) { return (F)((I)v & 0x7fffffff); }

// Nearest code of each lane: how many midpoints between codes lie below it.
inline I Nearest(F v) {
  I index{};
  for (int c = 1; c < 16; ++c) index -= v > (kNf4Codes[c - 1] + kNf4Codes[c]) / 2;
  return index;
}

template <typename T>
void QuantizeBlock(const T* x, uint8_t* codes, float* absmax) {
  F largest{};
  for (int64_t i = 0; i < kNf4Block; i += kLanes) largest = Max(largest, Magnitude(Load(x + i)));
  *absmax = MaxOf(largest);
  const float inverse = 1.0f / (*absmax > kNf4SmallestAbsmax ? *absmax : kNf4SmallestAbsmax);
  for (int64_t i = 0; i < kNf4Block; i += kLanes) {
    const F scaled = Load(x + i) * inverse;
    const I index = Nearest(Min(Max(scaled, Splat(-1.0f)), Splat(1.0f)));
    for (int64_t pair = 0; pair < kLanes / 2; ++pair) {
      codes[(i / 2) + pair] = static_cast<uint8_t>(index[2 * pair] << 4 | index[2 * pair + 1]);
    }
  }
}

void DequantizeBlock(const uint8_t* codes, float absmax, float* y) {
  F table;
  std::memcpy(&table, kNf4Codes, sizeof table);
  const I low_half = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  const I high_half = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  for (int64_t i = 0; i < kNf4Block; i += 2 * kLanes) {
    const F first = __builtin_shuffle(table, Nibbles(codes + i / 2, true)) * absmax;
    const F second = __builtin_shuffle(table, Nibbles(codes + i / 2, false)) * absmax;
    Store(y + i, __builtin_shuffle(first, second, low_half));
    Store(y + i + kLanes, __builtin_shuffle(first, second, high_half));
  }
}

// A block has 16 values only, so they are rounded to bf16 before they are looked up.
void DequantizeBlock(const uint8_t* codes, float absmax, BFloat16* y) {
  F table;
  std::memcpy(&table, kNf4Codes, sizeof table);
  BFloat16 values[2 * kLanes];
  Store(values, table * absmax);
#if defined(__AVX512BW__)
  typedef uint16_t H2 __attribute__((vector_size(64)));
  std::memcpy(values + kLanes, values, kLanes * sizeof *values);
  H2 lookup;
  std::memcpy(&lookup, values, sizeof lookup);
  for (int64_t i = 0; i < kNf4Block; i += 2 * kLanes) {
    const U wide = (U)WidenBytes(codes + i / 2);
    const H2 found = __builtin_shuffle(lookup, (H2)(wide >> 4 | (wide & 15) << 16));
    std::memcpy(y + i, &found, sizeof found);
  }
#else
  for (int64_t i = 0; i < kNf4Block; i += 2) {
    y[i] = values[codes[i / 2] >> 4];
    y[i + 1] = values[codes[i / 2] & 15];
  }
#endif
}

inline float Absmax(const Nf4DequantizeParams& p, int64_t block) {
  const float centred =
      p.nested_map[p.absmax_codes[block]] * p.nested_absmax[block / kNf4NestedBlock];
  return centred + p.offset;
}

// Block `b` of 32 rows.
inline void TransposedTile(const Nf4DequantizeTransposedParams& p, int64_t row, int64_t b) {
  BFloat16 tile[kTileRows * kNf4Block];
  for (int64_t r = 0; r < kTileRows; ++r) {
    const int64_t block = (row + r) * (p.in / kNf4Block) + b;
    DequantizeBlock(p.from.codes + block * (kNf4Block / 2), Absmax(p.from, block),
                    tile + r * kNf4Block);
  }
  BFloat16* y = static_cast<BFloat16*>(p.from.y) + b * kNf4Block * p.ld + row;
  for (int64_t c = 0; c < kNf4Block; c += kTileColumns)
    TransposeTile(tile + c, kNf4Block, y + c * p.ld, p.ld);
}

}  // namespace

void Nf4Quantize(const Nf4QuantizeParams& p, int64_t begin, int64_t end) {
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * kNf4Block;
    uint8_t* codes = p.codes + first / 2;
    if (p.dtype == DType::kFloat32) {
      QuantizeBlock(static_cast<const float*>(p.x) + first, codes, p.absmax + block);
    } else {
      QuantizeBlock(static_cast<const BFloat16*>(p.x) + first, codes, p.absmax + block);
    }
  }
}

void Nf4Dequantize(const Nf4DequantizeParams& p, int64_t begin, int64_t end) {
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * kNf4Block;
    const float absmax = Absmax(p, block);
    const uint8_t* codes = p.codes + first / 2;
    if (p.dtype == DType::kFloat32) {
      DequantizeBlock(codes, absmax, static_cast<float*>(p.y) + first);
    } else {
      DequantizeBlock(codes, absmax, static_cast<BFloat16*>(p.y) + first);
    }
  }
}

void Nf4DequantizeTransposed(const Nf4DequantizeTransposedParams& p, int64_t begin, int64_t end) {
  const int64_t row_blocks = p.in / kNf4Block;
  for (int64_t first = begin; first < end; first += kTransposeGroups) {
    const int64_t last = first + kTransposeGroups < end ? first + kTransposeGroups : end;
    for (int64_t b = 0; b < row_blocks; ++b) {
      for (int64_t item = first; item < last; ++item) TransposedTile(p, item * kTileRows, b);
    }
  }
  FinishLines();
}

}  // namespace ll::LL_SIMD
