#include "kernels/common/torch_adapter.h"
#include "kernels/fp8/fp8.h"
#include "kernels/ops.h"

namespace ll {
namespace {

const uint8_t* CodesOf(const at::Tensor& t) {
  return static_cast<const uint8_t*>(t.const_data_ptr());
}
uint8_t* CodesOf(at::Tensor& t) { return static_cast<uint8_t*>(t.data_ptr()); }

const float* FactorsOf(const at::Tensor& factors, int64_t width) {
  if (!factors.defined()) return nullptr;
  CheckOperand(factors);
  LL_CHECK(factors.numel() == width);
  return factors.const_data_ptr<float>();
}

void CheckRows(const Fp8Rows& q) {
  CheckOperand(q.codes);
  CheckOperand(q.scales);
  LL_CHECK(q.codes.scalar_type() == at::kFloat8_e4m3fn && q.codes.dim() == 2);
  LL_CHECK(q.scales.scalar_type() == at::kFloat && q.scales.numel() == q.codes.size(0));
}

}  // namespace

void QuantizeFp8(const at::Tensor& x, const at::Tensor& factors, Fp8Rows& q) {
  CheckRows(q);
  LL_CHECK(x.scalar_type() == at::kBFloat16 && x.sizes() == q.codes.sizes());
  LL_CHECK(x.stride(1) == 1 || x.size(1) <= 1);
  const int64_t rows = x.size(0), width = x.size(1);
  const OpScope scope("fp8 conversion", [&] { return Moves({x, q.codes}); });
  const Fp8QuantizeParams p{static_cast<const BFloat16*>(x.const_data_ptr()),
                            FactorsOf(factors, width),
                            CodesOf(q.codes),
                            q.scales.data_ptr<float>(),
                            x.stride(0),
                            width};
  RunKernel(x, p, rows, Grain(width), Fp8Quantize, &CudaKernels::fp8_quantize);
}

void DequantizeFp8(const Fp8Rows& q, const at::Tensor& factors, at::Tensor& y) {
  CheckRows(q);
  CheckOperand(y);
  LL_CHECK(y.scalar_type() == at::kBFloat16 && y.sizes() == q.codes.sizes());
  const int64_t rows = y.size(0), width = y.size(1);
  const OpScope scope("fp8 conversion", [&] { return Moves({q.codes, y}); });
  const Fp8DequantizeParams p{CodesOf(q.codes), q.scales.const_data_ptr<float>(),
                              FactorsOf(factors, width), static_cast<BFloat16*>(y.data_ptr()),
                              width};
  RunKernel(y, p, rows, Grain(width), Fp8Dequantize, &CudaKernels::fp8_dequantize);
}

void TransposeFp8(const at::Tensor& codes, at::Tensor& y) {
  CheckOperand(codes);
  CheckOperand(y);
  LL_CHECK(codes.element_size() == 1 && y.element_size() == 1 && codes.dim() == 2);
  const int64_t rows = codes.size(0), columns = codes.size(1);
  LL_CHECK(y.sizes() == at::IntArrayRef({columns, rows}));
  const OpScope scope("fp8 conversion", [&] { return Moves({codes, y}); });
  const Fp8TransposeParams p{CodesOf(codes), CodesOf(y), rows, columns};
  const int64_t groups = (rows + kFp8TransposeRows - 1) / kFp8TransposeRows;
  RunKernel(codes, p, groups, Grain(kFp8TransposeRows * columns), Fp8Transpose,
            &CudaKernels::fp8_transpose);
}

}  // namespace ll
