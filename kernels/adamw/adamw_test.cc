#include <cmath>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

// Three steps against the formulas in fp64.
TEST(AdamW, FollowsTheFormulas) {
  for (const int64_t n : {1, 15, 16, 1000, 70001}) {
    SCOPED_TRACE(n);
    at::Tensor master = Random({n}, at::kFloat, 1), m = at::zeros({n}), v = at::zeros({n});
    at::Tensor compute = at::zeros({n}, at::kBFloat16);
    at::Tensor w = master.to(at::kDouble), m64 = at::zeros({n}, at::kDouble),
               v64 = at::zeros({n}, at::kDouble);
    for (int64_t step = 1; step <= 3; ++step) {
      const at::Tensor grad = Random({n}, at::kFloat, 10 + step, 0.01);
      const AdamWSettings s{.lr = 1e-2,
                            .beta1 = 0.9,
                            .beta2 = 0.95,
                            .eps = 1e-8,
                            .weight_decay = 0.1,
                            .step = step,
                            .grad_scale = 0.5};
      AdamWStep(s, master, m, v, grad, compute);
      const at::Tensor g = grad.to(at::kDouble) * 0.5;
      w = w * (1 - 1e-2 * 0.1);
      m64 = m64 * 0.9 + g * 0.1;
      v64 = v64 * 0.95 + g * g * 0.05;
      w = w - 1e-2 / (1 - std::pow(0.9, step)) * m64 /
                  (v64.sqrt() / std::sqrt(1 - std::pow(0.95, step)) + 1e-8);
      EXPECT_LT((master - w).abs().max().item<double>(), 1e-6);
      EXPECT_TRUE(at::equal(compute, master.to(at::kBFloat16)));
    }
    at::Tensor same = master;
    AdamWStep({.lr = 1e-2}, master, m, v, m.clone(), same);  // fp32 training: compute is the master
  }
}

}  // namespace
}  // namespace ll
