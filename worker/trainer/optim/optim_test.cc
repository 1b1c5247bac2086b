#include <cmath>

#include <ATen/CPUGeneratorImpl.h>

#include "base/status_matchers.h"
#include "gtest/gtest.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/optim/grad_norm.h"
#include "worker/trainer/optim/sharded_parameters.h"

namespace ll {
namespace {

Parameter MakeParameter(std::vector<int64_t> shape, uint64_t seed, bool bf16) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  Parameter parameter;
  parameter.master = at::randn(shape, generator, at::TensorOptions(at::kFloat));
  parameter.compute = bf16 ? parameter.master.to(at::kBFloat16) : parameter.master;
  parameter.grad = at::randn(shape, generator, at::TensorOptions(at::kFloat));
  return parameter;
}

// A slice a parameter, whole.
std::vector<Slice> SlicesOf(const std::vector<Parameter>& parameters) {
  std::vector<Slice> slices;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = parameters[i];
    slices.push_back({i, 0, p.compute.numel(), p.master.view({-1}), p.grad.view({-1}),
                      p.compute.view({-1}), p.compute.dim() > 1});
  }
  return slices;
}

// The formula of torch.optim.AdamW in fp64, step by step.
TEST(AdamWOptimizer, FollowsTheFormula) {
  std::vector<Parameter> parameters = {MakeParameter({33, 17}, 1, true),
                                       MakeParameter({19}, 2, false)};
  const AdamWOptions options{0.9, 0.95, 1e-8, 0.1};
  std::vector<Slice> slices = SlicesOf(parameters);
  AdamWOptimizer optimizer(slices, options);
  std::vector<at::Tensor> w, m, v;
  for (const Parameter& p : parameters) {
    w.push_back(p.master.to(at::kDouble));
    m.push_back(at::zeros_like(w.back()));
    v.push_back(at::zeros_like(w.back()));
  }
  const double lr = 0.01, scale = 0.5;
  for (int64_t step = 1; step <= 5; ++step) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      parameters[i].grad.mul_(1.0 + 0.1 * static_cast<double>(step));
      const at::Tensor g = parameters[i].grad.to(at::kDouble) * scale;
      if (i == 0) w[i] *= 1 - lr * options.weight_decay;  // the second is one-dimensional: no decay
      m[i] = options.beta1 * m[i] + (1 - options.beta1) * g;
      v[i] = options.beta2 * v[i] + (1 - options.beta2) * g * g;
      const at::Tensor m_hat = m[i] / (1 - std::pow(options.beta1, step));
      const at::Tensor v_hat = v[i] / (1 - std::pow(options.beta2, step));
      w[i] -= lr * m_hat / (v_hat.sqrt() + options.eps);
    }
    optimizer.Step(step, lr, scale);
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_LT((parameters[i].master.to(at::kDouble) - w[i]).abs().max().item<double>(), 1e-6);
    EXPECT_LT((optimizer.exp_avg()[i].to(at::kDouble) - m[i].view({-1})).abs().max().item<double>(),
              1e-6);
  }
  EXPECT_TRUE(at::equal(parameters[0].compute, parameters[0].master.to(at::kBFloat16)));
}

TEST(GradNorm, IsGlobalAndClipsAsTorch) {
  std::vector<Parameter> parameters = {MakeParameter({200, 777}, 3, false),
                                       MakeParameter({5}, 4, false)};
  double sum = 0;
  for (const Parameter& p : parameters) sum += p.grad.to(at::kDouble).pow(2).sum().item<double>();
  const auto comm = MakeSingleComm();
  ShardedParameters shards(parameters, /*zero_stage=*/2, /*sparse_embedding=*/true, *comm);
  EXPECT_EQ(shards.zero_stage(), 0);
  LL_ASSERT_OK_AND_ASSIGN(const double norm, shards.GradNorm());
  EXPECT_NEAR(norm, std::sqrt(sum), 1e-9 * norm);
  EXPECT_DOUBLE_EQ(ClipFactor(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_EQ(ClipFactor(0.5, 1.0), 1.0);
  EXPECT_EQ(ClipFactor(1e9, 0.0), 1.0);
  parameters[1].grad[2] = NAN;
  LL_ASSERT_OK_AND_ASSIGN(const double broken, shards.GradNorm());
  EXPECT_TRUE(std::isnan(broken));
}

}  // namespace
}  // namespace ll
