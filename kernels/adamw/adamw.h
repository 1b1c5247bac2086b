// One AdamW step (decoupled weight decay, as torch.optim.AdamW) on fp32 masters:
//   g = grad * grad_scale
//   w -= lr * weight_decay * w
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   w -= lr / bias_correction1 * m / (sqrt(v) / sqrt(bias_correction2) + eps)
// and the new w rounded into the compute copy in the same pass.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

// Flat arrays of the same length. `compute` is null where the model reads the master itself (fp32
// training). grad_scale carries the clipping factor. bias_correction_i = 1 - beta_i^step, step
// counted from 1.
struct AdamWParams {
  float* master;
  float* m;
  float* v;
  const float* grad;
  BFloat16* compute;
  float lr, beta1, beta2, eps, weight_decay;
  float bias_correction1, bias_correction2;
  float grad_scale;
};
LL_SIMD_KERNEL(AdamW, AdamWParams)
LL_CUDA_KERNEL(AdamW, AdamWParams)

}  // namespace ll
