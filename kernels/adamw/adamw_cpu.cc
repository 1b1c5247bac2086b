#include "kernels/adamw/adamw.h"

#include <cmath>

#include "kernels/common/simd.h"

namespace ll::LL_SIMD {
namespace {

struct Step {
  F w, m, v;
};

inline F Sqrt(F x) {
  F r;
  for (int i = 0; i < kLanes; ++i) r[i] = __builtin_sqrtf(x[i]);
  return r;
}

inline Step Update(const AdamWParams& p, F w, F m, F v, F g) {
  const float step_size = p.lr / p.bias_correction1;
  const float root = sqrtf(p.bias_correction2);
  g *= p.grad_scale;
  w *= 1.0f - p.lr * p.weight_decay;
  m = m * p.beta1 + g * (1.0f - p.beta1);
  v = v * p.beta2 + g * g * (1.0f - p.beta2);
  w -= step_size * m / (Sqrt(v) / root + p.eps);
  return {w, m, v};
}

}  // namespace

void AdamW(const AdamWParams& p, int64_t begin, int64_t end) {
  ForVectors(
      end - begin,
      [&](int64_t k) {
        const int64_t i = begin + k;
        const Step s =
            Update(p, Load(p.master + i), Load(p.m + i), Load(p.v + i), Load(p.grad + i));
        Store(p.master + i, s.w);
        Store(p.m + i, s.m);
        Store(p.v + i, s.v);
        if (p.compute != nullptr) Store(p.compute + i, s.w);
      },
      [&](int64_t k, int64_t n) {
        const int64_t i = begin + k;
        const Step s = Update(p, LoadPart(p.master + i, n), LoadPart(p.m + i, n),
                              LoadPart(p.v + i, n), LoadPart(p.grad + i, n));
        StorePart(p.master + i, s.w, n);
        StorePart(p.m + i, s.m, n);
        StorePart(p.v + i, s.v, n);
        if (p.compute != nullptr) StorePart(p.compute + i, s.w, n);
      });
}

}  // namespace ll::LL_SIMD
