#include "kernels/fp8/fp8.h"

#include "kernels/common/simd.h"

namespace ll::LL_SIMD {
namespace {

typedef uint8_t B __attribute__((vector_size(16)));

constexpr uint32_t kSign = 0x80000000u, kInfinity = 0x7f800000u, kNan = 0x7fc00000u;
// Exponents as fp32 stores them: of 2^0, and what e4m3's (bias 7) are below fp32's.
constexpr uint32_t kOne = 127, kBiasGap = 127 - 7;

inline float AsFloat(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

struct RowScale {
  float scale, inverse;
};
// Of a row whose largest magnitude has these bits; those of an infinity or a NaN are larger than
// any other's.
inline RowScale ScaleOf(uint32_t largest) {
  if (largest >= kInfinity) return {AsFloat(kNan), AsFloat(kNan)};
  if (largest == 0) return {1, 1};
  // 448 = 1.75 * 2^8: a mantissa beyond 1.75 takes the next exponent.
  const uint32_t exponent = (largest + 0x1fffffu) >> 23;
  const uint32_t biased = exponent > 9 ? exponent - 8 : 1;
  return {AsFloat(biased << 23), AsFloat((2 * kOne - biased) << 23)};
}

// Of values within 448, or NaN.
inline B Encode(F v) {
  const U bits = (U)v, magnitude = bits & ~kSign;
  // To three bits of mantissa; below 2^-6 to multiples of 2^-9, which are those of a float at 2^14.
  const U normal = ((magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20) - (kBiasGap << 3);
  const U small = (U)((F)magnitude + 16384.0f) - ((kOne + 14) << 23);
  U code = magnitude < ((kOne - 6) << 23) ? small : normal;
  code |= (bits & kSign) >> 24;
  code = magnitude > kInfinity ? (U{} + 0x7fu) : code;
  return __builtin_convertvector(code, B);
}

inline F Decode(B codes) {
  const U code = __builtin_convertvector(codes, U), magnitude = code & 0x7fu;
  const U normal = (magnitude << 20) + (kBiasGap << 23);
  // Multiples of 2^-9 are mantissas behind 2^-6.
  constexpr uint32_t kSmallest = (kOne - 6) << 23;
  const F small = (F)((magnitude << 20) + kSmallest) - AsFloat(kSmallest);
  U bits = magnitude < 8u ? (U)small : normal;
  bits = magnitude == 0x7fu ? (U{} + kNan) : bits;
  return (F)(bits | ((code & 0x80u) << 24));
}

inline F LoadFactors(const float* factors, int64_t i, int64_t n) {
  if (factors == nullptr) return Splat(1);
  return n == kLanes ? Load(factors + i) : LoadPart(factors + i, n, 1);
}

void QuantizeRow(const Fp8QuantizeParams& p, int64_t row) {
  const BFloat16* x = p.x + row * p.x_stride;
  uint8_t* codes = p.codes + row * p.width;
  U largest{};
  for (int64_t i = 0; i < p.width; i += kLanes) {
    const int64_t n = p.width - i < kLanes ? p.width - i : kLanes;
    const F v = n == kLanes ? Load(x + i) : LoadPart(x + i, n);
    const U magnitude = (U)(v * LoadFactors(p.factors, i, n)) & ~kSign;
    largest = magnitude > largest ? magnitude : largest;
  }
  uint32_t most = 0;
  for (int i = 0; i < kLanes; ++i) most = largest[i] > most ? largest[i] : most;
  const RowScale scale = ScaleOf(most);
  p.scales[row] = scale.scale;
  for (int64_t i = 0; i < p.width; i += kLanes) {
    const int64_t n = p.width - i < kLanes ? p.width - i : kLanes;
    const F v = n == kLanes ? Load(x + i) : LoadPart(x + i, n);
    const B code = Encode(v * LoadFactors(p.factors, i, n) * scale.inverse);
    std::memcpy(codes + i, &code, n);
  }
}

}  // namespace

void Fp8Quantize(const Fp8QuantizeParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) QuantizeRow(p, row);
}

void Fp8Dequantize(const Fp8DequantizeParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const uint8_t* codes = p.codes + row * p.width;
    BFloat16* y = p.y + row * p.width;
    for (int64_t i = 0; i < p.width; i += kLanes) {
      const int64_t n = p.width - i < kLanes ? p.width - i : kLanes;
      B code{};
      std::memcpy(&code, codes + i, n);
      const F v = Decode(code) * p.scales[row] / LoadFactors(p.factors, i, n);
      if (n == kLanes) {
        Store(y + i, v);
      } else {
        StorePart(y + i, v, n);
      }
    }
  }
}

void Fp8Transpose(const Fp8TransposeParams& p, int64_t begin, int64_t end) {
  const int64_t last = end * kFp8TransposeRows < p.rows ? end * kFp8TransposeRows : p.rows;
  constexpr int64_t kColumns = 64;
  for (int64_t row = begin * kFp8TransposeRows; row < last; row += kFp8TransposeRows) {
    const int64_t rows = last - row < kFp8TransposeRows ? last - row : kFp8TransposeRows;
    for (int64_t column = 0; column < p.columns; column += kColumns) {
      const int64_t columns = p.columns - column < kColumns ? p.columns - column : kColumns;
      for (int64_t c = column; c < column + columns; ++c) {
        for (int64_t r = row; r < row + rows; ++r) p.y[c * p.rows + r] = p.x[r * p.columns + c];
      }
    }
  }
}

}  // namespace ll::LL_SIMD
