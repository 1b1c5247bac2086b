#include "worker/trainer/optim/adamw.h"

#include "kernels/ops.h"

namespace ll {

AdamWOptimizer::AdamWOptimizer(std::vector<Slice>& slices, const AdamWOptions& options)
    : slices_(slices), options_(options) {
  for (const Slice& slice : slices_) {
    exp_avg_.push_back(at::zeros_like(slice.master));
    exp_avg_sq_.push_back(at::zeros_like(slice.master));
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
  for (size_t i = 0; i < slices_.size(); ++i) {
    Slice& slice = slices_[i];
    settings.weight_decay = slice.decays ? options_.weight_decay : 0.0;
    AdamWStep(settings, slice.master, exp_avg_[i], exp_avg_sq_[i], slice.grad, slice.compute);
  }
}

}  // namespace ll
