#include "kernels/common/torch_adapter.h"
#include "kernels/ops.h"
#include "kernels/rms_norm/rms_norm.h"

namespace ll {

void RmsNormForward(const at::Tensor& x, const at::Tensor& w, double eps, at::Tensor& y,
                    at::Tensor& rstd) {
  for (const at::Tensor* t : {&x, static_cast<const at::Tensor*>(&y)}) CheckOperand(*t);
  LL_CHECK(w.is_contiguous());
  const int64_t width = w.numel();
  LL_CHECK(x.size(-1) == width && y.sizes() == x.sizes() && rstd.numel() * width == x.numel());
  const RmsNormForwardParams p{x.const_data_ptr(),
                               w.const_data_ptr<float>(),
                               y.data_ptr(),
                               rstd.data_ptr<float>(),
                               width,
                               static_cast<float>(eps),
                               DTypeOf(x)};
  at::parallel_for(0, rstd.numel(), Grain(width),
                   [&](int64_t b, int64_t e) { RmsNormForward(p, b, e); });
}

void RmsNormBackward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                     const at::Tensor& rstd, at::Tensor& dresidual, at::Tensor& dw) {
  LL_CHECK(w.is_contiguous());
  for (const at::Tensor* t : {&dy, &x, static_cast<const at::Tensor*>(&dresidual)})
    CheckOperand(*t);
  const int64_t width = w.numel(), rows = rstd.numel();
  const int64_t blocks = (rows + kRmsNormBlockRows - 1) / kRmsNormBlockRows;
  at::Tensor dw_blocks;
  if (dw.defined()) dw_blocks = at::empty({blocks, width}, dw.options());
  const RmsNormBackwardParams p{dy.const_data_ptr(),
                                x.const_data_ptr(),
                                w.const_data_ptr<float>(),
                                rstd.const_data_ptr<float>(),
                                dresidual.data_ptr(),
                                dw.defined() ? dw_blocks.data_ptr<float>() : nullptr,
                                rows,
                                width,
                                DTypeOf(x)};
  at::parallel_for(0, blocks, 1, [&](int64_t b, int64_t e) { RmsNormBackward(p, b, e); });
  if (dw.defined()) dw.add_(dw_blocks.sum(0).view_as(dw));
}

}  // namespace ll
