// Rows in fp8: e4m3 (Micikevicius et al. 2022, "FP8 formats for deep learning"; four significant
// bits, no infinities, the largest value 448) with a scale each. The scale of a row is the smallest
// power of two, 2^-126 at least, with which its largest magnitude is within 448, and 1 for zeros:
//   code = e4m3(x * factor / scale), to nearest even;  value = code * scale / factor.
// Beside a scale of amax / 448 a power of two loses at most one bit at the bottom of the range,
// below 2^-14 of amax, for the rest is floating point; and it makes values exact in bf16: a product
// of them is the same whether a GPU multiplies codes and scales the result, or bf16 values are
// multiplied. A row with an infinity or
// a NaN becomes NaN, scale and codes, and so does all that is computed of it.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

constexpr float kFp8Largest = 448;

// Items are rows: x [items, width], rows `x_stride` elements apart; codes [items, width] and scales
// [items] are written. `factors` [width], powers of two, multiply the columns first; null: none.
struct Fp8QuantizeParams {
  const BFloat16* x;
  const float* factors;
  uint8_t* codes;
  float* scales;
  int64_t x_stride, width;
};
LL_SIMD_KERNEL(Fp8Quantize, Fp8QuantizeParams)
LL_CUDA_KERNEL(Fp8Quantize, Fp8QuantizeParams)

// Items are rows: y [items, width] is written with the values, columns divided by `factors` where
// they are given.
struct Fp8DequantizeParams {
  const uint8_t* codes;
  const float* scales;
  const float* factors;
  BFloat16* y;
  int64_t width;
};
LL_SIMD_KERNEL(Fp8Dequantize, Fp8DequantizeParams)
LL_CUDA_KERNEL(Fp8Dequantize, Fp8DequantizeParams)

// Items are groups of kFp8TransposeRows rows of x [rows, columns], bytes; y [columns, rows] is
// written.
constexpr int64_t kFp8TransposeRows = 64;
struct Fp8TransposeParams {
  const uint8_t* x;
  uint8_t* y;
  int64_t rows, columns;
};
LL_SIMD_KERNEL(Fp8Transpose, Fp8TransposeParams)
LL_CUDA_KERNEL(Fp8Transpose, Fp8TransposeParams)

}  // namespace ll
