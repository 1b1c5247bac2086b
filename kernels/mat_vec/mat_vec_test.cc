#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

TEST(MatVec, MatchesTheProductInFp64) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [out, in] :
         {std::pair{1, 1}, {3, 16}, {4, 32}, {7, 33}, {130, 47}, {576, 1536}, {1001, 576}}) {
      SCOPED_TRACE(testing::Message() << dtype << " out " << out << " in " << in);
      const at::Tensor w = Random({out, in}, dtype, 1), x = Random({1, in}, dtype, 2),
                       add = Random({1, out}, dtype, 3);
      const at::Tensor expected = at::mm(x.to(at::kDouble), w.to(at::kDouble).t());
      at::Tensor y = at::empty({1, out}, dtype), y32 = at::empty({1, out}, at::kFloat);
      MatVec(w, x, {}, y);
      ExpectClose(y, expected);
      MatVec(w, x, {}, y32);
      EXPECT_LT((y32 - expected).abs().max().item<double>(),
                1e-5 * (1 + expected.abs().max().item<double>()));
      MatVec(w, x, add, y);
      ExpectClose(y, expected + add.to(at::kDouble));
      // y may be what is added.
      at::Tensor sum = add.clone();
      MatVec(w, x, sum, sum);
      EXPECT_TRUE(at::equal(sum, y));
    }
  }
}

}  // namespace
}  // namespace ll
