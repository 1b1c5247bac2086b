#include "kernels/cross_entropy/cross_entropy.h"

#include <cmath>

#include "kernels/common/simd.h"

namespace ll::LL_SIMD {
namespace {

inline float ToFloat(float x) { return x; }
inline float ToFloat(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

template <typename T>
float RowMax(const T* z, int64_t n) {
  F m = Splat(-INFINITY);
  ForVectors(
      n, [&](int64_t i) { m = Max(m, Load(z + i)); },
      [&](int64_t i, int64_t k) { m = Max(m, LoadPart(z + i, k, -INFINITY)); });
  return MaxOf(m);
}

template <typename T>
float RowSumExp(const T* z, int64_t n, float max) {
  F a{}, b{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    a += Exp(Load(z + i) - max);
    b += Exp(Load(z + i + kLanes) - max);
  }
  float tail = 0;
  for (; i < n; ++i) tail += expf(ToFloat(z[i]) - max);
  return Sum(a + b) + tail;
}

template <typename T>
void Rows(const CrossEntropyParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    T* z = static_cast<T*>(p.logits) + row * p.vocab;
    const int64_t label = p.labels[row];
    if (label < 0) {
      p.nll[row] = 0;
      if (p.write_grad) std::memset(z, 0, p.vocab * sizeof(T));
      continue;
    }
    const float max = RowMax(z, p.vocab);
    const float log_sum = max + logf(RowSumExp(z, p.vocab, max));
    p.nll[row] = log_sum - ToFloat(z[label]);
    if (!p.write_grad) continue;
    // The label's own element in fp32 before it is rounded: softmax - 1 cancels where the model is
    // sure.
    const float at_label = p.grad_scale * (expf(ToFloat(z[label]) - log_sum) - 1.0f);
    ForVectors(
        p.vocab, [&](int64_t i) { Store(z + i, Exp(Load(z + i) - log_sum) * p.grad_scale); },
        [&](int64_t i, int64_t n) {
          StorePart(z + i, Exp(LoadPart(z + i, n) - log_sum) * p.grad_scale, n);
        });
    StorePart(z + label, Splat(at_label), 1);
  }
}

}  // namespace

void CrossEntropy(const CrossEntropyParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? Rows<float>(p, begin, end) : Rows<BFloat16>(p, begin, end);
}

}  // namespace ll::LL_SIMD
