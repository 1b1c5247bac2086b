#include <ATen/Parallel.h>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

TEST(SumSquares, MatchesFp64AndIgnoresThreads) {
  for (const int64_t n : {0, 1, 7, 65536, 65537, 300001}) {
    const at::Tensor x = Random({n}, at::kFloat, n + 1);
    const double exact = x.to(at::kDouble).pow(2).sum().item<double>();
    EXPECT_NEAR(SumSquares(x), exact, 1e-12 * exact) << n;
    const int threads = at::get_num_threads();
    const double before = SumSquares(x);
    at::set_num_threads(threads == 1 ? 2 : 1);
    EXPECT_EQ(SumSquares(x), before) << n;
    at::set_num_threads(threads);
  }
}

TEST(AccumulateInto, AddsInFp32) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = Random({1003}, dtype, 3);
    at::Tensor sum = Random({1003}, at::kFloat, 4);
    const at::Tensor expected = sum + x.to(at::kFloat) * 0.25;
    AccumulateInto(sum, x, 0.25);
    EXPECT_LT((sum - expected).abs().max().item<double>(), 1e-6);
  }
}

}  // namespace
}  // namespace ll
