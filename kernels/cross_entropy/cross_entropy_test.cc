#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

TEST(CrossEntropy, LossAndGradientMatchAutograd) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t vocab : {1, 2, 31, 32, 61, 4099}) {
      SCOPED_TRACE(testing::Message() << dtype << " vocab " << vocab);
      const at::Tensor logits = Random({6, vocab}, dtype, vocab, 3.0);
      at::Tensor labels = at::randint(0, vocab, {6}, at::kLong);
      labels[2] = -100;
      const at::Tensor leaf = Leaf(logits);
      const at::Tensor picked =
          -at::log_softmax(leaf, 1).gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1);
      const at::Tensor expected = picked * labels.ge(0);
      at::Tensor nll = at::empty({6}, at::kFloat), untouched = logits.clone(),
                 grad = logits.clone();
      CrossEntropyInPlace(untouched, labels, 0.5, /*write_grad=*/false, nll);
      EXPECT_TRUE(at::equal(untouched, logits));
      ExpectClose(nll, expected);
      CrossEntropyInPlace(grad, labels, 0.5, /*write_grad=*/true, nll);
      (expected.sum() * 0.5).backward();
      ExpectClose(grad, leaf.grad());
      EXPECT_TRUE(grad[2].eq(0).all().item<bool>());
    }
  }
}

TEST(CrossEntropy, LargeLogitsStayFinite) {
  at::Tensor logits = at::tensor({3e4f, -3e4f, 0.0f}).view({1, 3}), nll = at::empty({1});
  CrossEntropyInPlace(logits, at::zeros({1}, at::kLong), 1.0, true, nll);
  EXPECT_NEAR(nll.item<double>(), 0, 1e-6);
  EXPECT_LT(logits.abs().max().item<double>(), 1e-6);
}

}  // namespace
}  // namespace ll
