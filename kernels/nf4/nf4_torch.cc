#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/torch_adapter.h"
#include "kernels/nf4/nf4.h"
#include "kernels/ops.h"
#include "kernels/transpose/transpose.h"

namespace ll {
namespace {

// The signed dynamic map with 7 exponent bits (Dettmers et al. 2022, "8-bit optimizers", section
// 2): for each power of ten from 1e-6 to 1 twice as many steps as for the one below.
std::vector<float> MakeDynamicMap() {
  std::vector<float> map = {0.0f, 1.0f};
  for (int exponent = 0; exponent < 7; ++exponent) {
    const int steps = 1 << exponent;
    const at::Tensor edges = at::linspace(0.1, 1.0, steps + 1, at::kFloat);
    const at::Tensor means = (edges.narrow(0, 0, steps) + edges.narrow(0, 1, steps)) / 2.0 *
                             std::pow(10.0, exponent - 6);
    for (int i = 0; i < steps; ++i) {
      const float value = means[i].item<float>();
      map.push_back(value);
      map.push_back(-value);
    }
  }
  std::sort(map.begin(), map.end());
  return map;
}

const std::vector<float>& DynamicMap() {
  static const std::vector<float> map = MakeDynamicMap();
  return map;
}

// The 255 midpoints between its entries.
const std::vector<float>& DynamicMidpoints() {
  static const std::vector<float> midpoints = [] {
    std::vector<float> out;
    for (int i = 1; i < 256; ++i) out.push_back((DynamicMap()[i - 1] + DynamicMap()[i]) / 2);
    return out;
  }();
  return midpoints;
}

// Index of the nearest entry; a midpoint counts as the lower one.
uint8_t NearestInMap(float x) {
  const std::vector<float>& midpoints = DynamicMidpoints();
  return static_cast<uint8_t>(std::lower_bound(midpoints.begin(), midpoints.end(), x) -
                              midpoints.begin());
}

// The map where a kernel on `device` can read it. The GPU's copy is never freed: when static
// objects end, its driver may be gone.
const float* MapOn(at::Device device) {
  if (device.is_cpu()) return DynamicMap().data();
  static const at::Tensor& map = *new at::Tensor(Nf4NestedQuantMap().to(device));
  return map.const_data_ptr<float>();
}

Nf4DequantizeParams ParamsOf(const Nf4Tensor& q, at::Tensor& y) {
  return {q.codes.const_data_ptr<uint8_t>(),
          q.absmax.const_data_ptr<uint8_t>(),
          q.nested_absmax.const_data_ptr<float>(),
          MapOn(y.device()),
          q.offset,
          y.data_ptr(),
          DTypeOf(y)};
}

}  // namespace

at::Tensor Nf4QuantMap() { return at::tensor(at::ArrayRef<float>(kNf4Codes, 16), at::kFloat); }

at::Tensor Nf4NestedQuantMap() { return at::tensor(DynamicMap(), at::kFloat); }

Nf4Tensor QuantizeNf4(const at::Tensor& w, std::optional<float> offset) {
  CheckOperand(w);
  LL_CHECK(w.numel() % kNf4Block == 0);
  const int64_t blocks = w.numel() / kNf4Block;
  Nf4Tensor q;
  q.shape = w.sizes().vec();
  q.codes = at::empty({w.numel() / 2}, w.options().dtype(at::kByte));
  q.absmax = at::empty({blocks}, at::kByte);
  at::Tensor absmax = at::empty({blocks}, w.options().dtype(at::kFloat));
  const Nf4QuantizeParams p{w.const_data_ptr(), q.codes.data_ptr<uint8_t>(),
                            absmax.data_ptr<float>(), DTypeOf(w)};
  RunKernel(w, p, blocks, Grain(kNf4Block), Nf4Quantize, &CudaKernels::nf4_quantize);

  absmax = absmax.cpu();  // the second level, 1/64 of the elements, is the host's
  q.offset = offset.value_or(absmax.mean().item<float>());
  absmax.sub_(q.offset);
  const int64_t nested = (blocks + kNf4NestedBlock - 1) / kNf4NestedBlock;
  q.nested_absmax = at::empty({nested}, at::kFloat);
  const float* x = absmax.const_data_ptr<float>();
  uint8_t* codes = q.absmax.data_ptr<uint8_t>();
  float* scale = q.nested_absmax.data_ptr<float>();
  DynamicMidpoints();  // made by one thread
  at::parallel_for(0, nested, Grain(kNf4NestedBlock), [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      const int64_t begin = n * kNf4NestedBlock, end = std::min(blocks, begin + kNf4NestedBlock);
      float largest = 0;
      for (int64_t b = begin; b < end; ++b) largest = std::max(largest, std::abs(x[b]));
      scale[n] = largest;
      const float inverse = 1.0f / std::max(largest, kNf4SmallestAbsmax);
      for (int64_t b = begin; b < end; ++b)
        codes[b] = NearestInMap(std::clamp(x[b] * inverse, -1.0f, 1.0f));
    }
  });
  q.absmax = q.absmax.to(w.device());
  q.nested_absmax = q.nested_absmax.to(w.device());
  return q;
}

void DequantizeNf4(const Nf4Tensor& q, at::Tensor& w) {
  CheckOperand(w);
  LL_CHECK(w.numel() == q.codes.numel() * 2);
  const Nf4DequantizeParams p = ParamsOf(q, w);
  const OpScope scope("NF4 to bf16", [&] { return Moves({q.codes, q.absmax, w}); });
  RunKernel(w, p, w.numel() / kNf4Block, Grain(kNf4Block), Nf4Dequantize,
            &CudaKernels::nf4_dequantize);
}

void DequantizeNf4Transposed(const Nf4Tensor& q, at::Tensor& wt) {
  const int64_t out = q.shape[0], in = q.shape[1];
  LL_CHECK(wt.device().is_cpu() && wt.scalar_type() == at::kBFloat16 && wt.stride(1) == 1);
  LL_CHECK(wt.size(0) == in && wt.size(1) == out && in % kNf4Block == 0);
  LL_CHECK(out % kTransposeRows == 0);
  const OpScope scope("NF4 to bf16", [&] { return Moves({q.codes, q.absmax, wt}); });
  const Nf4DequantizeTransposedParams p{ParamsOf(q, wt), in, wt.stride(0)};
  at::parallel_for(0, out / kTransposeRows, Grain(kTransposeRows * in),
                   [&](int64_t b, int64_t e) { Nf4DequantizeTransposed(p, b, e); });
}

}  // namespace ll
