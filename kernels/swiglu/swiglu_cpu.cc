#include "kernels/swiglu/swiglu.h"

#include "kernels/common/simd.h"

namespace ll::LL_SIMD {
namespace {

inline F Sigmoid(F x) { return 1.0f / (1.0f + Exp(-x)); }

template <typename T>
void ForwardRows(const SwigluForwardParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* gate = static_cast<const T*>(p.gate_up) + row * 2 * p.width;
    const T* up = gate + p.width;
    T* out = static_cast<T*>(p.out) + row * p.width;
    ForVectors(
        p.width,
        [&](int64_t i) {
          const F g = Load(gate + i);
          Store(out + i, g * Sigmoid(g) * Load(up + i));
        },
        [&](int64_t i, int64_t n) {
          const F g = LoadPart(gate + i, n);
          StorePart(out + i, g * Sigmoid(g) * LoadPart(up + i, n), n);
        });
  }
}

template <typename T>
void BackwardRows(const SwigluBackwardParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    T* gate = static_cast<T*>(p.gate_up) + row * 2 * p.width;
    T* up = gate + p.width;
    const T* dout = static_cast<const T*>(p.dout) + row * p.width;
    ForVectors(
        p.width,
        [&](int64_t i) {
          const F g = Load(gate + i), u = Load(up + i), d = Load(dout + i), s = Sigmoid(g);
          Store(gate + i, d * u * s * (1.0f + g * (1.0f - s)));
          Store(up + i, d * g * s);
        },
        [&](int64_t i, int64_t n) {
          const F g = LoadPart(gate + i, n), u = LoadPart(up + i, n), d = LoadPart(dout + i, n),
                  s = Sigmoid(g);
          StorePart(gate + i, d * u * s * (1.0f + g * (1.0f - s)), n);
          StorePart(up + i, d * g * s, n);
        });
  }
}

}  // namespace

void SwigluForward(const SwigluForwardParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? ForwardRows<float>(p, begin, end)
                             : ForwardRows<BFloat16>(p, begin, end);
}

void SwigluBackward(const SwigluBackwardParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? BackwardRows<float>(p, begin, end)
                             : BackwardRows<BFloat16>(p, begin, end);
}

}  // namespace ll::LL_SIMD
