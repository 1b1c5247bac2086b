#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

TEST(Embedding, ForwardGathersAndBackwardSumsRepeatedTokens) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t width : {1, 16, 37}) {
      const at::Tensor table = Random({11, width}, dtype, 1), dy = Random({50, width}, dtype, 2);
      at::manual_seed(3);
      const at::Tensor tokens = at::randint(0, 9, {50}, at::kLong);
      at::Tensor out = at::empty({50, width}, dtype), grad = at::ones({11, width});
      EmbeddingForward(table, tokens, out);
      EXPECT_TRUE(at::equal(out, table.index_select(0, tokens)));
      EmbeddingBackward(dy, tokens, grad);
      const at::Tensor expected =
          at::ones({11, width}, at::kDouble).index_add(0, tokens, dy.to(at::kDouble));
      EXPECT_LT((grad - expected).abs().max().item<double>(), 1e-5);
    }
  }
}

}  // namespace
}  // namespace ll
