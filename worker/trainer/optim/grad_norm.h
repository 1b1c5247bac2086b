// The global gradient norm, over all parameters together, and the factor that clips it.
#pragma once

#include <vector>

#include "model/llama.h"

namespace ll {

// sqrt of the sum of squares of all gradients, accumulated in fp64 over blocks of a fixed size: the
// same bits for every number of threads.
double GlobalGradNorm(const std::vector<Parameter>& parameters);

// As torch.nn.utils.clip_grad_norm_: min(1, max_norm / (norm + 1e-6)); 1 where max_norm is 0 (no
// clipping).
double ClipFactor(double norm, double max_norm);

}  // namespace ll
