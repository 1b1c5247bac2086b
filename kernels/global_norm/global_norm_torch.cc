#include <numeric>

#include "kernels/common/torch_adapter.h"
#include "kernels/global_norm/global_norm.h"
#include "kernels/ops.h"

namespace ll {

at::Tensor BlockSumSquares(const at::Tensor& x) {
  CheckOperand(x);
  const OpScope scope("norm of gradients", [&] { return Moves({x}); });
  const int64_t blocks = (x.numel() + kSumSquaresBlock - 1) / kSumSquaresBlock;
  at::Tensor sums = at::empty({blocks}, x.options().dtype(at::kDouble));
  const SumSquaresParams p{x.const_data_ptr<float>(), x.numel(), sums.data_ptr<double>()};
  RunKernel(x, p, blocks, 1, SumSquares, &CudaKernels::sum_squares);
  return sums.cpu();
}

double SumSquares(const at::Tensor& x) {
  const at::Tensor sums = BlockSumSquares(x);
  const double* begin = sums.const_data_ptr<double>();
  return std::accumulate(begin, begin + sums.numel(), 0.0);
}

}  // namespace ll
