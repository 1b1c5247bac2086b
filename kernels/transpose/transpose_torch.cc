#include "kernels/transpose/transpose.h"

#include "kernels/common/torch_adapter.h"
#include "kernels/ops.h"

namespace ll {

void TransposeInto(const at::Tensor& x, at::Tensor& y) {
  CheckOperand(x);
  LL_CHECK(x.is_cpu());
  LL_CHECK(x.scalar_type() == at::kBFloat16 && y.scalar_type() == at::kBFloat16);
  LL_CHECK(x.dim() == 2 && y.dim() == 2 && y.stride(1) == 1);
  LL_CHECK(y.size(0) == x.size(1) && y.size(1) == x.size(0));
  const TransposeParams p{static_cast<const BFloat16*>(x.const_data_ptr()),
                          static_cast<BFloat16*>(y.data_ptr()),
                          x.size(0),
                          x.size(1),
                          x.stride(0),
                          y.stride(0)};
  const OpScope scope("transpose", [&] { return Moves({x, x}); });
  const int64_t items = (x.size(0) + kTransposeRows - 1) / kTransposeRows;
  at::parallel_for(0, items, Grain(kTransposeRows * x.size(1)),
                   [&](int64_t b, int64_t e) { Transpose(p, b, e); });
}

}  // namespace ll
