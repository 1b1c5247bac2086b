#include "kernels/rope/rope.h"

#include "kernels/common/simd.h"

namespace ll::LL_SIMD {
namespace {

template <typename T>
void Tokens(const RopeParams& p, int64_t begin, int64_t end) {
  const int64_t half = p.head_dim / 2;
  const float sign = p.backward ? -1.0f : 1.0f;
  for (int64_t t = begin; t < end; ++t) {
    const float* cos = p.cos + t * half;
    const float* sin = p.sin + t * half;
    for (int64_t h = 0; h < p.heads; ++h) {
      T* x1 = static_cast<T*>(p.x) + t * p.token_stride + h * p.head_dim;
      T* x2 = x1 + half;
      ForVectors(
          half,
          [&](int64_t i) {
            const F a = Load(x1 + i), b = Load(x2 + i), c = Load(cos + i), s = Load(sin + i) * sign;
            Store(x1 + i, a * c - b * s);
            Store(x2 + i, b * c + a * s);
          },
          [&](int64_t i, int64_t n) {
            const F a = LoadPart(x1 + i, n), b = LoadPart(x2 + i, n);
            const F c = LoadPart(cos + i, n), s = LoadPart(sin + i, n) * sign;
            StorePart(x1 + i, a * c - b * s, n);
            StorePart(x2 + i, b * c + a * s, n);
          });
    }
  }
}

}  // namespace

void Rope(const RopeParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? Tokens<float>(p, begin, end) : Tokens<BFloat16>(p, begin, end);
}

}  // namespace ll::LL_SIMD
