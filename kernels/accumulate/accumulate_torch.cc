#include "kernels/accumulate/accumulate.h"
#include "kernels/common/torch_adapter.h"
#include "kernels/ops.h"

namespace ll {

void AccumulateInto(at::Tensor& sum, const at::Tensor& x, double scale) {
  CheckOperand(sum);
  CheckOperand(x);
  LL_CHECK(sum.numel() == x.numel());
  const AccumulateParams p{sum.data_ptr<float>(), x.const_data_ptr(), static_cast<float>(scale),
                           DTypeOf(x)};
  const OpScope scope("add to fp32 sum", [&] { return Moves({sum, sum, x}); });
  RunKernel(x, p, x.numel(), Grain(1), Accumulate, &CudaKernels::accumulate);
}

}  // namespace ll
