// Helpers of the kernels' tests: seeded inputs, fp64 leaves for autograd references, and one rule
// for closeness.
#pragma once

#include <ATen/ATen.h>

#include "gtest/gtest.h"

namespace ll {

inline at::Tensor Random(at::IntArrayRef shape, at::ScalarType dtype, uint64_t seed,
                         double scale = 1.0) {
  at::manual_seed(seed);
  return (at::randn(shape) * scale).to(dtype);
}

// The same values in fp64, collecting a gradient.
inline at::Tensor Leaf(const at::Tensor& t) {
  return t.to(at::kDouble).clone().set_requires_grad(true);
}

// Every element within one rounding of its dtype (8 bits of mantissa for bfloat16), and fp32's
// accumulated error.
inline void ExpectClose(const at::Tensor& got, const at::Tensor& expected, double factor = 1.0) {
  const double epsilon = (got.scalar_type() == at::kBFloat16 ? 1.0 / 256 : 2e-6) * factor;
  const at::Tensor exact = expected.detach().to(at::kDouble);
  const at::Tensor error =
      (got.to(at::kDouble) - exact).abs() / (exact.abs() + 1e-2 * (1 + exact.abs().max()));
  EXPECT_TRUE(error.isfinite().all().item<bool>());
  EXPECT_LT(error.max().item<double>(), epsilon * (got.scalar_type() == at::kBFloat16 ? 1.01 : 10));
}

}  // namespace ll
