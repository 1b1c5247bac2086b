#include "model/fp8_product.h"

#include <optional>

#include "kernels/common/cuda_kernels.h"
#include "kernels/common/torch_op_trace.h"
#include "model/scratch.h"

namespace ll::fp8 {
namespace {

constexpr int64_t kAlignment = 16;  // of what at::_scaled_mm takes, in elements

Fp8Rows Quantized(const at::Tensor& x, const at::Tensor& factors) {
  Fp8Rows rows{Scratch(ScratchUse::kCodes, x.sizes(), x.options().dtype(at::kFloat8_e4m3fn)),
               Scratch(ScratchUse::kScales, {x.size(0)}, x.options().dtype(at::kFloat))};
  QuantizeFp8(x, factors, rows);
  return rows;
}

// at::_scaled_mm's definition, for the emulation of a GPU.
void ScaledMm(const Fp8Rows& x, const at::Tensor& codes, const at::Tensor& scales,
              const at::Tensor& bias, at::Tensor& y) {
  at::Tensor sums = x.codes.to(at::kFloat).mm(codes.to(at::kFloat));
  sums.mul_(x.scales.view({-1, 1})).mul_(scales);
  if (bias.defined()) sums.add_(bias);
  y.copy_(sums);
}

}  // namespace

bool Multiplies(at::Device device, int64_t out, int64_t in) {
  const CudaKernels* kernels = CudaKernelsInUse();
  return kernels != nullptr && (device.is_cuda() || kernels->on_host) &&
         kernels->multiplies_fp8() && out % kAlignment == 0 && in % kAlignment == 0;
}

void Product(const at::Tensor& x, const at::Tensor& factors, const at::Tensor& codes,
             const at::Tensor& scales, const at::Tensor& bias, at::Tensor& y) {
  const Fp8Rows rows = Quantized(x, factors);
  const int64_t columns = codes.size(1);
  const at::Tensor column_scales =
      scales.defined() ? scales.view({1, columns}) : at::ones({1, columns}, rows.scales.options());
  const OpScope scope("fp8 product", [&] { return ProductWork(y, rows.codes, codes); });
  if (!x.is_cuda()) return ScaledMm(rows, codes, column_scales, bias, y);
  at::_scaled_mm_out(y, rows.codes, codes, rows.scales.view({-1, 1}), column_scales,
                     bias.defined() ? std::optional(bias) : std::nullopt,
                     /*scale_result=*/std::nullopt, /*out_dtype=*/at::kBFloat16,
                     /*use_fast_accum=*/false);
}

at::Tensor Rounded(const at::Tensor& x, const at::Tensor& factors) {
  const Fp8Rows rows = Quantized(x, factors);
  at::Tensor values = Scratch(ScratchUse::kRounded, x.sizes(), x.options());
  DequantizeFp8(rows, factors, values);
  return values;
}

}  // namespace ll::fp8
