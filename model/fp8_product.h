// Products with a frozen weight W [out, in] in fp8 (kernels/fp8/fp8.h): its rows and, anew for each
// product, the rows of what it is multiplied by are e4m3 codes with a scale each.
//   y = x W^T    x's rows are quantised; W's scales belong to columns of the product.
//   dx = dy W    W's scales run along the sum: dy's columns are multiplied by them before dy's rows
//                are quantised, so that both passes see the same values of W.
// A device that multiplies e4m3 does so and scales the sums (Product). Elsewhere the same values,
// which bf16 holds exactly, are multiplied in bf16 (Rounded): the reference, and no faster than a
// base in bf16.
#pragma once

#include <ATen/ATen.h>

#include "kernels/ops.h"

namespace ll::fp8 {

// Whether products with a [out, in] weight on this device are of e4m3: compute capability 8.9 and
// later, and both features multiples of 16.
bool Multiplies(at::Device device, int64_t out, int64_t in);

// y [N, m] bf16 is overwritten with (x * factors) codes scales + bias: x [N, k] bf16; factors fp32
// [k], powers of two; codes e4m3 [k, m], column-major; scales fp32 [m]; bias bf16 [m]. Factors,
// scales and bias may be undefined: none.
void Product(const at::Tensor& x, const at::Tensor& factors, const at::Tensor& codes,
             const at::Tensor& scales, const at::Tensor& bias, at::Tensor& y);

// The values of x that Product multiplies, with the factors taken out again, bf16: in a buffer that
// the next call overwrites.
at::Tensor Rounded(const at::Tensor& x, const at::Tensor& factors);

}  // namespace ll::fp8
