#include "kernels/embedding/embedding.h"

#include "kernels/common/simd.h"

namespace ll::LL_SIMD {
namespace {

template <typename T>
void Groups(const EmbeddingBackwardParams& p, int64_t begin, int64_t end) {
  for (int64_t group = begin; group < end; ++group) {
    float* grad = p.grad + p.tokens[p.order[p.group_starts[group]]] * p.width;
    for (int64_t k = p.group_starts[group]; k < p.group_starts[group + 1]; ++k) {
      const T* dy = static_cast<const T*>(p.dy) + p.order[k] * p.width;
      ForVectors(
          p.width, [&](int64_t i) { Store(grad + i, Load(grad + i) + Load(dy + i)); },
          [&](int64_t i, int64_t n) {
            StorePart(grad + i, LoadPart(grad + i, n) + LoadPart(dy + i, n), n);
          });
    }
  }
}

}  // namespace

void EmbeddingBackward(const EmbeddingBackwardParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? Groups<float>(p, begin, end) : Groups<BFloat16>(p, begin, end);
}

}  // namespace ll::LL_SIMD
