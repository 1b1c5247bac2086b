#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

TEST(Rope, RotatesTheFirstHeadsAndBackwardIsTheInverse) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t d : {2, 6, 32, 64, 80}) {
      SCOPED_TRACE(testing::Message() << dtype << " head_dim " << d);
      const int64_t n = 7, heads = 3, rotated = 2;
      const at::Tensor x = Random({n, heads * d}, dtype, d),
                       angle = Random({n, d / 2}, at::kFloat, 9, 3.0);
      const at::Tensor cos = angle.cos(), sin = angle.sin();
      at::Tensor y = x.clone();
      RopeInPlace(y, rotated, cos, sin, /*backward=*/false);
      const at::Tensor v = x.to(at::kDouble).view({n, heads, d});
      const at::Tensor a = v.narrow(2, 0, d / 2), b = v.narrow(2, d / 2, d / 2),
                       c = cos.unsqueeze(1), s = sin.unsqueeze(1);
      const at::Tensor expected = at::cat({a * c - b * s, b * c + a * s}, 2);
      ExpectClose(y.view({n, heads, d}).narrow(1, 0, rotated).contiguous(),
                  expected.narrow(1, 0, rotated));
      EXPECT_TRUE(
          at::equal(y.view({n, heads, d}).select(1, 2), x.view({n, heads, d}).select(1, 2)));
      if (dtype != at::kFloat) continue;
      RopeInPlace(y, rotated, cos, sin, /*backward=*/true);
      EXPECT_LT((y - x).abs().max().item<double>(), 1e-5);
    }
  }
}

}  // namespace
}  // namespace ll
