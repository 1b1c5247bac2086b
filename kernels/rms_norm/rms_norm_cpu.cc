#include <cmath>

#include "kernels/common/simd.h"
#include "kernels/rms_norm/rms_norm.h"

namespace ll::LL_SIMD {
namespace {

int64_t Offset(const RmsNormRows& rows, int64_t row, int64_t width) {
  return row / rows.heads * rows.token_stride + row % rows.heads * width;
}

template <typename T>
void ForwardRows(const RmsNormForwardParams& p, int64_t begin, int64_t end) {
  const float* w = p.w;
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(p.x) + Offset(p.x_rows, row, p.width);
    T* y = static_cast<T*>(p.y) + Offset(p.y_rows, row, p.width);
    F sum{};
    ForVectors(
        p.width,
        [&](int64_t i) {
          const F v = Load(x + i);
          sum += v * v;
        },
        [&](int64_t i, int64_t n) {
          const F v = LoadPart(x + i, n);
          sum += v * v;
        });
    const float rstd = 1.0f / sqrtf(Sum(sum) / p.width + p.eps);
    p.rstd[row] = rstd;
    ForVectors(
        p.width, [&](int64_t i) { Store(y + i, Load(x + i) * rstd * Load(w + i)); },
        [&](int64_t i, int64_t n) {
          StorePart(y + i, LoadPart(x + i, n) * rstd * LoadPart(w + i, n), n);
        });
  }
}

template <typename T>
void BackwardRow(const RmsNormBackwardParams& p, int64_t row, float* dw) {
  const T* dy = static_cast<const T*>(p.dy) + Offset(p.dy_rows, row, p.width);
  const T* x = static_cast<const T*>(p.x) + Offset(p.x_rows, row, p.width);
  const float* w = p.w;
  T* dx = static_cast<T*>(p.dx) + Offset(p.dx_rows, row, p.width);
  const float rstd = p.rstd[row];
  F dot{};
  ForVectors(
      p.width, [&](int64_t i) { dot += Load(dy + i) * Load(w + i) * Load(x + i); },
      [&](int64_t i, int64_t n) {
        dot += LoadPart(dy + i, n) * LoadPart(w + i, n) * LoadPart(x + i, n);
      });
  const float c = Sum(dot) * rstd * rstd / p.width;  // mean(g * xhat) * rstd
  ForVectors(
      p.width,
      [&](int64_t i) {
        const F d = Load(dy + i), v = Load(x + i);
        const F before = p.accumulate ? Load(dx + i) : F{};
        Store(dx + i, before + rstd * (d * Load(w + i) - v * c));
        if (dw != nullptr) Store(dw + i, Load(dw + i) + d * v * rstd);
      },
      [&](int64_t i, int64_t n) {
        const F d = LoadPart(dy + i, n), v = LoadPart(x + i, n);
        const F before = p.accumulate ? LoadPart(dx + i, n) : F{};
        StorePart(dx + i, before + rstd * (d * LoadPart(w + i, n) - v * c), n);
        if (dw != nullptr) StorePart(dw + i, LoadPart(dw + i, n) + d * v * rstd, n);
      });
}

}  // namespace

void RmsNormForward(const RmsNormForwardParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? ForwardRows<float>(p, begin, end)
                             : ForwardRows<BFloat16>(p, begin, end);
}

void RmsNormBackward(const RmsNormBackwardParams& p, int64_t begin, int64_t end) {
  for (int64_t block = begin; block < end; ++block) {
    float* dw = p.dw_blocks == nullptr ? nullptr : p.dw_blocks + block * p.width;
    if (dw != nullptr) std::memset(dw, 0, p.width * sizeof(float));
    const int64_t first = block * p.block_rows;
    const int64_t last = first + p.block_rows < p.rows ? first + p.block_rows : p.rows;
    for (int64_t row = first; row < last; ++row) {
      p.dtype == DType::kFloat32 ? BackwardRow<float>(p, row, dw)
                                 : BackwardRow<BFloat16>(p, row, dw);
    }
  }
}

}  // namespace ll::LL_SIMD
