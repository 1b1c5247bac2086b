#include <numeric>

#include "kernels/common/torch_adapter.h"
#include "kernels/global_norm/global_norm.h"
#include "kernels/ops.h"

namespace ll {

void BlockSumSquares(const at::Tensor& x, at::Tensor& sums) {
  CheckOperand(x);
  CheckOperand(sums);
  LL_CHECK(sums.numel() == SumSquaresBlocks(x.numel()) && sums.device() == x.device());
  const OpScope scope("norm of gradients", [&] { return Moves({x}); });
  const SumSquaresParams p{x.const_data_ptr<float>(), x.numel(), sums.data_ptr<double>()};
  RunKernel(x, p, sums.numel(), 1, SumSquares, &CudaKernels::sum_squares);
}

double SumSquares(const at::Tensor& x) {
  at::Tensor sums = at::empty({SumSquaresBlocks(x.numel())}, x.options().dtype(at::kDouble));
  BlockSumSquares(x, sums);
  sums = sums.cpu();
  const double* begin = sums.const_data_ptr<double>();
  return std::accumulate(begin, begin + sums.numel(), 0.0);
}

}  // namespace ll
