#include "worker/trainer/optim/grad_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/ops.h"

namespace ll {

double GlobalGradNorm(const std::vector<Parameter>& parameters) {
  double sum = 0;
  for (const Parameter& parameter : parameters) sum += SumSquares(parameter.grad);
  return std::sqrt(sum);
}

double ClipFactor(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace ll
