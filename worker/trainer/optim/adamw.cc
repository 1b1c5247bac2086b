#include "worker/trainer/optim/adamw.h"

#include "kernels/ops.h"

namespace ll {

AdamWOptimizer::AdamWOptimizer(std::vector<Parameter>& parameters, const AdamWOptions& options)
    : parameters_(parameters), options_(options) {
  for (const Parameter& parameter : parameters_) {
    exp_avg_.push_back(at::zeros_like(parameter.master));
    exp_avg_sq_.push_back(at::zeros_like(parameter.master));
  }
}

void AdamWOptimizer::Step(int64_t step, double learning_rate, double grad_scale) {
  AdamWSettings settings;
  settings.lr = learning_rate;
  settings.beta1 = options_.beta1;
  settings.beta2 = options_.beta2;
  settings.eps = options_.eps;
  settings.step = step;
  settings.grad_scale = grad_scale;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Parameter& parameter = parameters_[i];
    settings.weight_decay = parameter.master.dim() > 1 ? options_.weight_decay : 0.0;
    AdamWStep(settings, parameter.master, exp_avg_[i], exp_avg_sq_[i], parameter.grad,
              parameter.compute);
  }
}

}  // namespace ll
