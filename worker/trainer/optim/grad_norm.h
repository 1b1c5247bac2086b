// The factor that clips gradients by their global norm.
#pragma once

namespace ll {

// As torch.nn.utils.clip_grad_norm_: min(1, max_norm / (norm + 1e-6)); 1 where max_norm is 0 (no
// clipping).
double ClipFactor(double norm, double max_norm);

}  // namespace ll
