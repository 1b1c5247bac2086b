// Compiled without contraction to fused multiply-adds: bytes must equal bitsandbytes'.
#include "kernels/nf4/nf4.h"

#include "kernels/common/simd.h"

namespace ll::LL_SIMD {
namespace {

typedef uint8_t B __attribute__((vector_size(16)));

inline I Nibbles(const uint8_t* p, bool high) {
  B bytes;
  std::memcpy(&bytes, p, sizeof bytes);
  const I wide = __builtin_convertvector(bytes, I);
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

template <typename T>
void DequantizeBlock(const uint8_t* codes, float absmax, T* y) {
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
    const float centred =
        p.nested_map[p.absmax_codes[block]] * p.nested_absmax[block / kNf4NestedBlock];
    const float absmax = centred + p.offset;
    const uint8_t* codes = p.codes + first / 2;
    if (p.dtype == DType::kFloat32) {
      DequantizeBlock(codes, absmax, static_cast<float*>(p.y) + first);
    } else {
      DequantizeBlock(codes, absmax, static_cast<BFloat16*>(p.y) + first);
    }
  }
}

}  // namespace ll::LL_SIMD
