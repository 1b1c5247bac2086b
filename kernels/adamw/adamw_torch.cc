#include <cmath>

#include "kernels/adamw/adamw.h"
#include "kernels/common/torch_adapter.h"
#include "kernels/ops.h"

namespace ll {

void AdamWStep(const AdamWSettings& settings, at::Tensor& master, at::Tensor& m, at::Tensor& v,
               const at::Tensor& grad, at::Tensor& compute) {
  for (const at::Tensor* t :
       {static_cast<const at::Tensor*>(&master), static_cast<const at::Tensor*>(&m),
        static_cast<const at::Tensor*>(&v), &grad, static_cast<const at::Tensor*>(&compute)}) {
    CheckOperand(*t);
    LL_CHECK(t->numel() == master.numel());
  }
  const bool separate = compute.scalar_type() == at::kBFloat16;
  LL_CHECK(separate || compute.const_data_ptr() == master.const_data_ptr());
  AdamWParams p{};
  p.master = master.data_ptr<float>();
  p.m = m.data_ptr<float>();
  p.v = v.data_ptr<float>();
  p.grad = grad.const_data_ptr<float>();
  p.compute = separate ? static_cast<BFloat16*>(compute.data_ptr()) : nullptr;
  p.lr = static_cast<float>(settings.lr);
  p.beta1 = static_cast<float>(settings.beta1);
  p.beta2 = static_cast<float>(settings.beta2);
  p.eps = static_cast<float>(settings.eps);
  p.weight_decay = static_cast<float>(settings.weight_decay);
  p.bias_correction1 = static_cast<float>(1 - std::pow(settings.beta1, settings.step));
  p.bias_correction2 = static_cast<float>(1 - std::pow(settings.beta2, settings.step));
  p.grad_scale = static_cast<float>(settings.grad_scale);
  const OpScope scope("AdamW", [&] {
    OpWork work = Moves({master, master, m, m, v, v, grad});
    if (separate) work.bytes += static_cast<double>(compute.nbytes());
    return work;
  });
  RunKernel(master, p, master.numel(), Grain(1), AdamW, &CudaKernels::adamw);
}

}  // namespace ll
