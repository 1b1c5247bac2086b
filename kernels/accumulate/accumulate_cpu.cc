#include "kernels/accumulate/accumulate.h"

#include "kernels/common/simd.h"

namespace ll::LL_SIMD {
namespace {

template <typename T>
void Elements(const AccumulateParams& p, int64_t begin, int64_t end) {
  float* sum = p.sum + begin;
  const T* x = static_cast<const T*>(p.x) + begin;
  ForVectors(
      end - begin, [&](int64_t i) { Store(sum + i, Load(sum + i) + Load(x + i) * p.scale); },
      [&](int64_t i, int64_t n) {
        StorePart(sum + i, LoadPart(sum + i, n) + LoadPart(x + i, n) * p.scale, n);
      });
}

}  // namespace

void Accumulate(const AccumulateParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? Elements<float>(p, begin, end) : Elements<BFloat16>(p, begin, end);
}

}  // namespace ll::LL_SIMD
