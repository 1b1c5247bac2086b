#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

TEST(Swiglu, ForwardAndBackwardMatchAutograd) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t width : {1, 15, 16, 33, 1536}) {
      SCOPED_TRACE(testing::Message() << dtype << " width " << width);
      const at::Tensor gate_up = Random({9, 2 * width}, dtype, width, 4.0),
                       dout = Random({9, width}, dtype, 2);
      at::Tensor out = at::empty({9, width}, dtype);
      SwigluForward(gate_up, out);
      const at::Tensor leaf = Leaf(gate_up);
      const at::Tensor expected = at::silu(leaf.narrow(1, 0, width)) * leaf.narrow(1, width, width);
      ExpectClose(out, expected);
      at::Tensor grad = gate_up.clone();
      SwigluBackward(grad, dout);
      expected.backward(dout.to(at::kDouble));
      ExpectClose(grad, leaf.grad());
    }
  }
}

TEST(Swiglu, ExtremeGatesStayFinite) {
  const at::Tensor gate_up =
      at::tensor({-1e4f, 1e4f, -90.0f, 90.0f, 1.0f, 1.0f, 1.0f, 1.0f}).view({1, 8});
  at::Tensor out = at::empty({1, 4});
  SwigluForward(gate_up, out);
  EXPECT_LT((out - at::tensor({0.0f, 1e4f, 0.0f, 90.0f})).abs().max().item<double>(), 1e-2);
}

}  // namespace
}  // namespace ll
