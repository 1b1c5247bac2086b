// NF4 with double quantisation (QLoRA, Dettmers et al. 2023, sections 3 and 3.1), in bitsandbytes'
// layout: blocks of 64 consecutive elements of the row-major weight, each with the largest
// magnitude `absmax`; an element is the nearest of 16 codes of x / absmax (midpoints count as the
// lower code), the first of a pair in a byte's high half. The absmax themselves, less their mean,
// are kept in 8 bits: blocks of 256, each with its own fp32 largest magnitude, in the signed
// dynamic map. 4.127 bits a weight.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

constexpr int64_t kNf4Block = 64;
constexpr int64_t kNf4NestedBlock = 256;

constexpr float kNf4Codes[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// Below this an absmax counts as this much: a block of zeros gets the code of zero.
constexpr float kNf4SmallestAbsmax = 1e-38f;

// Items are blocks: x [items * 64] of `dtype`; codes [items * 32] and absmax [items] are written.
struct Nf4QuantizeParams {
  const void* x;
  uint8_t* codes;
  float* absmax;
  DType dtype;
};
LL_SIMD_KERNEL(Nf4Quantize, Nf4QuantizeParams)
LL_CUDA_KERNEL(Nf4Quantize, Nf4QuantizeParams)

// Items are blocks: y [items * 64] of `dtype` is written. absmax of block b =
// nested_map[absmax_codes[b]] * nested_absmax[b / 256] + offset.
struct Nf4DequantizeParams {
  const uint8_t* codes;
  const uint8_t* absmax_codes;
  const float* nested_absmax;
  const float* nested_map;  // [256]
  float offset;
  void* y;
  DType dtype;
};
LL_SIMD_KERNEL(Nf4Dequantize, Nf4DequantizeParams)
LL_CUDA_KERNEL(Nf4Dequantize, Nf4DequantizeParams)

// The same values of a weight [rows, in], in % 64 == 0, as its transpose [in, rows] in bf16:
// element (r, c) is written to y[c * ld + r], where y is from.y. Items are groups of 32 rows.
struct Nf4DequantizeTransposedParams {
  Nf4DequantizeParams from;
  int64_t in, ld;
};
LL_SIMD_KERNEL(Nf4DequantizeTransposed, Nf4DequantizeTransposedParams)

}  // namespace ll
