#include "worker/trainer/optim/grad_norm.h"

#include <algorithm>

namespace ll {

double ClipFactor(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace ll
