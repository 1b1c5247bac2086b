#include "kernels/common/torch_adapter.h"
#include "kernels/dropout/dropout.h"
#include "kernels/ops.h"

namespace ll {

namespace {

void Run(const at::Tensor& x, double p, uint64_t key, uint32_t stream, bool add, at::Tensor& y) {
  CheckOperand(x);
  CheckOperand(y);
  LL_CHECK(x.sizes() == y.sizes() && p >= 0 && p < 1);
  const DropoutParams params{x.const_data_ptr(),    y.data_ptr(), x.size(1), key, stream,
                             static_cast<float>(p), DTypeOf(x),   add};
  at::parallel_for(0, x.size(0), Grain(x.size(1)),
                   [&](int64_t b, int64_t e) { Dropout(params, b, e); });
}

}  // namespace

void Dropout(const at::Tensor& x, double p, uint64_t key, uint32_t stream, at::Tensor& y) {
  Run(x, p, key, stream, /*add=*/false, y);
}

void DropoutAdd(const at::Tensor& x, double p, uint64_t key, uint32_t stream, at::Tensor& y) {
  Run(x, p, key, stream, /*add=*/true, y);
}

}  // namespace ll
