#include "kernels/dropout/dropout.h"

#include "kernels/common/torch_adapter.h"
#include "kernels/ops.h"

namespace ll {
namespace {

uint32_t Threshold(double p) {
  LL_CHECK(p >= 0 && p < 1);
  return static_cast<uint32_t>(p * 65536 + 0.5);
}

}  // namespace

void Dropout(const at::Tensor& x, double p, uint64_t key, uint32_t stream, at::Tensor& y,
             int64_t first_row) {
  CheckOperand(x);
  CheckOperand(y);
  LL_CHECK(x.sizes() == y.sizes());
  const DropoutParams params{x.const_data_ptr(), y.data_ptr(), x.size(1), first_row, key, stream,
                             Threshold(p),       DTypeOf(x)};
  const OpScope scope("dropout", [&] { return Moves({x, y}); });
  RunKernel(x, params, x.size(0), Grain(x.size(1)), Dropout, &CudaKernels::dropout);
}

double DropoutScale(double p) { return 65536.0 / (65536.0 - Threshold(p)); }

}  // namespace ll
