#include "kernels/common/torch_adapter.h"
#include "kernels/ops.h"
#include "kernels/rope/rope.h"

namespace ll {

void RopeInPlace(at::Tensor& x, int64_t heads, const at::Tensor& cos, const at::Tensor& sin,
                 bool backward) {
  CheckOperand(cos);
  CheckOperand(sin);
  LL_CHECK(x.device() == cos.device() && x.dim() == 2 && x.stride(1) == 1 &&
           cos.size(0) >= x.size(0));
  const int64_t head_dim = cos.size(1) * 2;
  LL_CHECK(heads * head_dim <= x.size(1));
  const RopeParams p{x.data_ptr(),
                     cos.const_data_ptr<float>(),
                     sin.const_data_ptr<float>(),
                     x.stride(0),
                     heads,
                     head_dim,
                     backward,
                     DTypeOf(x)};
  const OpScope scope("RoPE", [&] {
    OpWork work = Moves({cos, sin});
    work.bytes += 2.0 * static_cast<double>(x.size(0) * heads * head_dim * x.element_size());
    return work;
  });
  RunKernel(x, p, x.size(0), Grain(heads * head_dim), Rope, &CudaKernels::rope);
}

}  // namespace ll
