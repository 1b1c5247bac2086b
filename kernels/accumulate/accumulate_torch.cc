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

void AddOuterProduct(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, double scale,
                     at::Tensor rounded) {
  const auto product = [&](const at::Tensor& to, bool adds) {
    return OpScope("product", [&] { return ProductWork(to, a.t(), b, adds); });
  };
  if (a.scalar_type() == at::kFloat) {
    const OpScope scope = product(sum, true);
    sum.addmm_(a.t(), b, /*beta=*/1, /*alpha=*/scale);
    return;
  }
  if (sum.is_cuda()) {
    const OpScope scope = product(sum, true);
    at::addmm_out(sum, sum, a.t(), b, at::kFloat, /*beta=*/1, /*alpha=*/scale);
    return;
  }
  if (!rounded.defined()) rounded = at::empty(sum.sizes(), a.options());
  {
    const OpScope scope = product(rounded, false);
    at::mm_out(rounded, a.t(), b);
  }
  AccumulateInto(sum, rounded, scale);
}

}  // namespace ll
