// AdamW (Loshchilov & Hutter 2019) over the model's trained parameters: fp32 masters and moments,
// bias-corrected as torch.optim.AdamW, the compute copies written in the same pass.
#pragma once

#include <cstdint>
#include <vector>

#include "model/llama.h"

namespace ll {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  // Decoupled; not applied to one-dimensional parameters (norms), as transformers' Trainer.
  double weight_decay = 0;
};

// Not thread-safe. The moments are created with the optimizer and live as long as it.
class AdamWOptimizer {
 public:
  // `parameters` are the model's and must outlive this.
  AdamWOptimizer(std::vector<Parameter>& parameters, const AdamWOptions& options);

  // One update with every gradient multiplied by `grad_scale` (clipping). `step` counts from 1.
  void Step(int64_t step, double learning_rate, double grad_scale);

  // First and second moments, fp32, in the parameters' order; a checkpoint reads and a resume
  // writes them.
  std::vector<at::Tensor>& exp_avg() { return exp_avg_; }
  std::vector<at::Tensor>& exp_avg_sq() { return exp_avg_sq_; }

 private:
  std::vector<Parameter>& parameters_;
  const AdamWOptions options_;
  std::vector<at::Tensor> exp_avg_, exp_avg_sq_;
};

}  // namespace ll
