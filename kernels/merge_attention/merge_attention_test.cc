#include <tuple>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

TEST(MergeAttention, IsAttentionOverBothParts) {
  for (const auto& [tokens, heads, dim] :
       {std::tuple<int64_t, int64_t, int64_t>{0, 2, 16}, {1, 1, 1}, {5, 3, 37}, {130, 4, 64}}) {
    SCOPED_TRACE(testing::Message() << tokens << " x " << heads << " x " << dim);
    at::Tensor out = Random({tokens, heads, dim}, at::kFloat, 1);
    const at::Tensor part = Random({tokens, heads, dim}, at::kFloat, 2);
    // Rows of a longer table; scores far apart too, where one part is all that is left.
    at::Tensor table = Random({heads, tokens + 3}, at::kFloat, 3) * 40;
    const at::Tensor before = table.clone(), part_lse = Random({heads, tokens}, at::kFloat, 4) * 40;
    at::Tensor lse = table.narrow(1, 2, tokens);
    const at::Tensor a = lse.to(at::kDouble).clone(), b = part_lse.to(at::kDouble),
                     both = at::logaddexp(a, b);
    const auto weighed = [&](const at::Tensor& x, const at::Tensor& of) {
      return x.to(at::kDouble) * (of - both).exp().t().unsqueeze(2);
    };
    const at::Tensor expected = weighed(out, a) + weighed(part, b);
    MergeAttention(out, lse, part, part_lse);
    if (tokens == 0) continue;
    EXPECT_LT((out - expected).abs().max().item<double>(), 2e-5);
    EXPECT_LT((lse - both).abs().max().item<double>(), 2e-5);
    EXPECT_TRUE(at::equal(table.narrow(1, 0, 2), before.narrow(1, 0, 2)));
    EXPECT_TRUE(at::equal(table.narrow(1, tokens + 2, 1), before.narrow(1, tokens + 2, 1)));
  }
}

TEST(MergeAttention, HandsOnWhatIsNotANumber) {
  at::Tensor out = at::ones({1, 1, 4}), lse = at::zeros({1, 1});
  MergeAttention(out, lse, at::full({1, 1, 4}, NAN), at::full({1, 1}, NAN));
  EXPECT_TRUE(at::isnan(out).all().item<bool>());
  EXPECT_TRUE(at::isnan(lse).all().item<bool>());
}

}  // namespace
}  // namespace ll
