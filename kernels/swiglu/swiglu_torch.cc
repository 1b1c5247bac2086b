#include "kernels/common/torch_adapter.h"
#include "kernels/ops.h"
#include "kernels/swiglu/swiglu.h"

namespace ll {

void SwigluForward(const at::Tensor& gate_up, at::Tensor& out) {
  CheckOperand(gate_up);
  CheckOperand(out);
  LL_CHECK(gate_up.size(1) == 2 * out.size(1) && gate_up.size(0) == out.size(0));
  const SwigluForwardParams p{gate_up.const_data_ptr(), out.data_ptr(), out.size(1), DTypeOf(out)};
  const OpScope scope("SwiGLU", [&] { return Moves({gate_up, out}); });
  RunKernel(out, p, out.size(0), Grain(out.size(1)), SwigluForward, &CudaKernels::swiglu_forward);
}

void SwigluBackward(at::Tensor& gate_up, const at::Tensor& dout) {
  CheckOperand(gate_up);
  CheckOperand(dout);
  LL_CHECK(gate_up.size(1) == 2 * dout.size(1) && gate_up.size(0) == dout.size(0));
  const SwigluBackwardParams p{gate_up.data_ptr(), dout.const_data_ptr(), dout.size(1),
                               DTypeOf(dout)};
  const OpScope scope("SwiGLU", [&] { return Moves({gate_up, gate_up, dout}); });
  RunKernel(dout, p, dout.size(0), Grain(dout.size(1)), SwigluBackward,
            &CudaKernels::swiglu_backward);
}

}  // namespace ll
