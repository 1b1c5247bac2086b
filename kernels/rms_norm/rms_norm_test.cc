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

}  // namespace
}  // namespace ll
