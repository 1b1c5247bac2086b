#include "kernels/common/torch_adapter.h"
#include "kernels/ops.h"
#include "kernels/rms_norm/rms_norm.h"

namespace ll {
namespace {

// The heads of `width` that lie beside each other in x [N, heads * width]; any row stride.
RmsNormRows HeadsOf(const at::Tensor& x, int64_t width) {
  LL_CHECK(x.dim() == 2 && x.stride(1) == 1 && x.size(1) % width == 0);
  return {x.size(1) / width, x.stride(0)};
}

void Forward(const at::Tensor& x, RmsNormRows x_rows, const at::Tensor& w, double eps,
             at::Tensor& y, RmsNormRows y_rows, at::Tensor& rstd) {
  const int64_t width = w.numel();
  LL_CHECK(w.is_contiguous() && rstd.is_contiguous() && y.sizes() == x.sizes() &&
           rstd.numel() * width == x.numel() && x.scalar_type() == y.scalar_type());
  const RmsNormForwardParams p{x.const_data_ptr(),
                               w.const_data_ptr<float>(),
                               y.data_ptr(),
                               rstd.data_ptr<float>(),
                               width,
                               x_rows,
                               y_rows,
                               static_cast<float>(eps),
                               DTypeOf(x)};
  const OpScope scope("RMSNorm", [&] { return Moves({x, y, w, rstd}); });
  RunKernel(x, p, rstd.numel(), Grain(width), RmsNormForward, &CudaKernels::rms_norm_forward);
}

// dw (may be undefined) += the gradient of w. `x` tells where to run; p.block_rows is set here.
void Backward(RmsNormBackwardParams p, const at::Tensor& x, at::Tensor& dw) {
  p.block_rows = RmsNormBlockRows(p.width, CudaKernelsFor(x) != nullptr);
  const int64_t blocks = (p.rows + p.block_rows - 1) / p.block_rows;
  at::Tensor dw_blocks;
  if (dw.defined()) {
    dw_blocks = at::empty({blocks, p.width}, dw.options());
    p.dw_blocks = dw_blocks.data_ptr<float>();
  }
  // The gradients of y and, where they are added to, of x.
  const OpScope scope("RMSNorm", [&] {
    return p.accumulate ? Moves({x, x, x, x}) : Moves({x, x, x});
  });
  RunKernel(x, p, blocks, 1, RmsNormBackward, &CudaKernels::rms_norm_backward);
  if (dw.defined()) dw.add_(dw_blocks.sum(0).view_as(dw));
}

}  // namespace

void RmsNormForward(const at::Tensor& x, const at::Tensor& w, double eps, at::Tensor& y,
                    at::Tensor& rstd) {
  for (const at::Tensor* t : {&x, static_cast<const at::Tensor*>(&y)}) CheckOperand(*t);
  LL_CHECK(x.size(-1) == w.numel());
  const RmsNormRows plain{1, w.numel()};
  Forward(x, plain, w, eps, y, plain, rstd);
}

void RmsNormBackward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                     const at::Tensor& rstd, at::Tensor& dresidual, at::Tensor& dw) {
  LL_CHECK(w.is_contiguous());
  for (const at::Tensor* t : {&dy, &x, static_cast<const at::Tensor*>(&dresidual)})
    CheckOperand(*t);
  const RmsNormRows plain{1, w.numel()};
  Backward({dy.const_data_ptr(), x.const_data_ptr(), w.const_data_ptr<float>(),
            rstd.const_data_ptr<float>(), dresidual.data_ptr(), nullptr, rstd.numel(), 0, w.numel(),
            plain, plain, plain, /*accumulate=*/true, DTypeOf(x)},
           x, dw);
}

void HeadRmsNormForward(const at::Tensor& x, const at::Tensor& w, double eps, at::Tensor& y,
                        at::Tensor& rstd) {
  Forward(x, HeadsOf(x, w.numel()), w, eps, y, HeadsOf(y, w.numel()), rstd);
}

void HeadRmsNormBackward(at::Tensor& dy, const at::Tensor& x, const at::Tensor& w,
                         const at::Tensor& rstd, at::Tensor& dw) {
  const int64_t width = w.numel();
  const RmsNormRows dy_rows = HeadsOf(dy, width);
  LL_CHECK(w.is_contiguous() && rstd.is_contiguous() && dy.sizes() == x.sizes() &&
           rstd.numel() * width == x.numel() && x.scalar_type() == dy.scalar_type());
  Backward({dy.const_data_ptr(), x.const_data_ptr(), w.const_data_ptr<float>(),
            rstd.const_data_ptr<float>(), dy.data_ptr(), nullptr, rstd.numel(), 0, width, dy_rows,
            HeadsOf(x, width), dy_rows, /*accumulate=*/false, DTypeOf(x)},
           x, dw);
}

}  // namespace ll
