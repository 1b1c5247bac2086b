#include <vector>

#include "kernels/common/torch_adapter.h"
#include "kernels/global_norm/global_norm.h"
#include "kernels/ops.h"

namespace ll {

double SumSquares(const at::Tensor& x) {
  CheckOperand(x);
  std::vector<double> sums((x.numel() + kSumSquaresBlock - 1) / kSumSquaresBlock);
  const SumSquaresParams p{x.const_data_ptr<float>(), x.numel(), sums.data()};
  at::parallel_for(0, static_cast<int64_t>(sums.size()), 1,
                   [&](int64_t b, int64_t e) { SumSquares(p, b, e); });
  double total = 0;
  for (double s : sums) total += s;
  return total;
}

}  // namespace ll
