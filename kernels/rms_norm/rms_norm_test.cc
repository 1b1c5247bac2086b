#include <tuple>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

at::Tensor Reference(const at::Tensor& x, const at::Tensor& w, double eps) {
  return x * at::rsqrt(x.pow(2).mean(-1, true) + eps) * w;
}

TEST(RmsNorm, ForwardAndBackwardMatchAutograd) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [rows, width] : {std::pair{1, 1}, {3, 16}, {5, 17}, {130, 40}, {257, 576}}) {
      SCOPED_TRACE(testing::Message() << dtype << " rows " << rows << " width " << width);
      const at::Tensor x = Random({rows, width}, dtype, 1), w = Random({width}, at::kFloat, 2),
                       dy = Random({rows, width}, dtype, 3);
      at::Tensor y = at::empty_like(x), rstd = at::empty({rows}, at::kFloat);
      RmsNormForward(x, w, 1e-5, y, rstd);
      const at::Tensor x64 = Leaf(x), w64 = Leaf(w);
      const at::Tensor expected = Reference(x64, w64, 1e-5);
      ExpectClose(y, expected);

      const at::Tensor before = Random({rows, width}, dtype, 4);
      at::Tensor dx = before.clone(), dw = at::full({width}, 0.5, at::kFloat);
      RmsNormBackward(dy, x, w, rstd, dx, dw);
      expected.backward(dy.to(at::kDouble));
      ExpectClose(dx, before.to(at::kDouble) + x64.grad());
      // dw is fp32 whatever the inputs are.
      EXPECT_LT((dw - 0.5 - w64.grad()).abs().max().item<double>(),
                1e-5 * (1 + w64.grad().abs().max().item<double>()));
      at::Tensor frozen;
      RmsNormBackward(dy, x, w, rstd, dx, frozen);
    }
  }
}

// Heads in the middle of wider rows, as q and k lie in qkv; what lies beside them stays.
TEST(HeadRmsNorm, ForwardAndBackwardMatchAutograd) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [tokens, heads, d] :
         {std::tuple{1, 1, 2}, {5, 3, 16}, {9, 2, 18}, {60, 5, 64}}) {
      SCOPED_TRACE(testing::Message() << dtype << " heads " << heads << " of " << d);
      const int64_t width = heads * d;
      const at::Tensor rows = Random({tokens, 2 * d + width + 3}, dtype, 1),
                       w = Random({d}, at::kFloat, 2), dy_rows = Random(rows.sizes(), dtype, 3);
      const at::Tensor x = rows.narrow(1, 2 * d, width);
      at::Tensor y_rows = rows.clone(), rstd = at::empty({tokens * heads}, at::kFloat);
      at::Tensor y = y_rows.narrow(1, 2 * d, width);
      HeadRmsNormForward(x, w, 1e-5, y, rstd);
      const at::Tensor x64 = Leaf(x.reshape({tokens * heads, d})), w64 = Leaf(w);
      const at::Tensor expected = Reference(x64, w64, 1e-5);
      ExpectClose(y.reshape({tokens * heads, d}), expected);
      EXPECT_TRUE(at::equal(y_rows.narrow(1, 0, 2 * d), rows.narrow(1, 0, 2 * d)));
      EXPECT_TRUE(at::equal(y_rows.narrow(1, 2 * d + width, 3), rows.narrow(1, 2 * d + width, 3)));

      at::Tensor in_place = rows.narrow(1, 2 * d, width).clone();
      HeadRmsNormForward(in_place, w, 1e-5, in_place, rstd);
      EXPECT_TRUE(at::equal(in_place, y));

      at::Tensor d_rows = dy_rows.clone(), dw = at::full({d}, 0.5, at::kFloat);
      at::Tensor dx = d_rows.narrow(1, 2 * d, width);
      expected.backward(dx.reshape({tokens * heads, d}).to(at::kDouble));
      HeadRmsNormBackward(dx, x, w, rstd, dw);
      ExpectClose(dx.reshape({tokens * heads, d}), x64.grad());
      EXPECT_TRUE(at::equal(d_rows.narrow(1, 0, 2 * d), dy_rows.narrow(1, 0, 2 * d)));
      EXPECT_LT((dw - 0.5 - w64.grad()).abs().max().item<double>(),
                1e-5 * (1 + w64.grad().abs().max().item<double>()));
      at::Tensor frozen;
      HeadRmsNormBackward(dx, x, w, rstd, frozen);
    }
  }
}

}  // namespace
}  // namespace ll
