#include "kernels/common/torch_adapter.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/ops.h"

namespace ll {

void CrossEntropyInPlace(at::Tensor& logits, const at::Tensor& labels, double grad_scale,
                         bool write_grad, at::Tensor& nll) {
  CheckOperand(logits);
  CheckOperand(labels);
  CheckOperand(nll);
  LL_CHECK(logits.size(0) == labels.numel() && nll.numel() == labels.numel());
  const CrossEntropyParams p{
      logits.data_ptr(), labels.const_data_ptr<int64_t>(), nll.data_ptr<float>(),
      logits.size(1),    static_cast<float>(grad_scale),   write_grad,
      DTypeOf(logits)};
  const OpScope scope("cross-entropy", [&] {
    return write_grad ? Moves({logits, logits, labels, nll}) : Moves({logits, labels, nll});
  });
  RunKernel(logits, p, logits.size(0), Grain(logits.size(1)), CrossEntropy,
            &CudaKernels::cross_entropy);
}

}  // namespace ll
