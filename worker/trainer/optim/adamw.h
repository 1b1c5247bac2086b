// AdamW (Loshchilov & Hutter 2019) over what this rank updates of the trained parameters: fp32
// masters and moments, bias-corrected as torch.optim.AdamW, the compute copies written in the same
// pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/ATen.h>

namespace ll {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  // Decoupled; not applied to one-dimensional parameters (norms), as transformers' Trainer.
  double weight_decay = 0;
};

// Elements [begin, end) of a trained parameter, flat: views of the model's tensors, or memory of
// this rank alone (optim/sharded_parameters.h).
struct Slice {
  size_t parameter = 0;  // index in Llama::parameters()
  int64_t begin = 0, end = 0;
  at::Tensor master, grad, compute;
  bool decays = false;  // the parameter is a matrix
};

// Not thread-safe. The moments are created with the optimizer and live as long as it.
class AdamWOptimizer {
 public:
  // `slices` must outlive this.
  AdamWOptimizer(std::vector<Slice>& slices, const AdamWOptions& options);

  // One update with every gradient multiplied by `grad_scale` (clipping). `step` counts from 1.
  void Step(int64_t step, double learning_rate, double grad_scale);

  std::vector<Slice>& slices() { return slices_; }
  // First and second moments, fp32, flat, one a slice; a checkpoint reads and a resume writes them.
  std::vector<at::Tensor>& exp_avg() { return exp_avg_; }
  std::vector<at::Tensor>& exp_avg_sq() { return exp_avg_sq_; }

 private:
  std::vector<Slice>& slices_;
  const AdamWOptions options_;
  std::vector<at::Tensor> exp_avg_, exp_avg_sq_;
};

}  // namespace ll
