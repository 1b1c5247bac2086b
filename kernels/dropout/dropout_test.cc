#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

TEST(Dropout, MaskDependsOnItsNameAlone) {
  const at::Tensor ones = at::ones({64, 50});
  at::Tensor a = at::empty_like(ones), b = at::empty_like(ones), other_key = at::empty_like(ones);
  at::Tensor other_stream = at::empty_like(ones), shorter = at::empty({10, 50});
  Dropout(ones, 0.25, 7, 1, a);
  Dropout(ones, 0.25, 7, 1, b);
  Dropout(ones, 0.25, 8, 1, other_key);
  Dropout(ones, 0.25, 7, 2, other_stream);
  Dropout(at::ones({10, 50}), 0.25, 7, 1, shorter);
  EXPECT_TRUE(at::equal(a, b));
  EXPECT_FALSE(at::equal(a, other_key));
  EXPECT_FALSE(at::equal(a, other_stream));
  EXPECT_TRUE(at::equal(a.narrow(0, 0, 10), shorter));
  EXPECT_TRUE(((a == 0) | ((a - 1 / 0.75).abs() < 1e-6)).all().item<bool>());
}

TEST(Dropout, KeepsTheExpectedShare) {
  const at::Tensor ones = at::ones({1000, 100});
  at::Tensor y = at::empty_like(ones);
  Dropout(ones, 0.1, 12345, 0, y);
  // 100,000 draws: a standard deviation of 0.001.
  EXPECT_NEAR(y.eq(0).to(at::kFloat).mean().item<double>(), 0.1, 0.006);
  // Neighbours are independent.
  const at::Tensor zero = y.eq(0).to(at::kFloat);
  EXPECT_NEAR((zero.narrow(1, 0, 99) * zero.narrow(1, 1, 99)).mean().item<double>(), 0.01, 0.003);
  EXPECT_NEAR((zero.narrow(0, 0, 999) * zero.narrow(0, 1, 999)).mean().item<double>(), 0.01, 0.003);
}

}  // namespace
}  // namespace ll
