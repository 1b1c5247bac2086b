#include "kernels/common/simd.h"
#include "kernels/mat_vec/mat_vec.h"

namespace ll::LL_SIMD {
namespace {

// sums[r] of rows r of w. Two sums a row hide the latency of the multiply-adds.
template <int kRows>
void Dots(const float* w, const float* x, int64_t in, float* sums) {
  F a[kRows], b[kRows];
  for (int r = 0; r < kRows; ++r) a[r] = b[r] = F{};
  int64_t i = 0;
  for (; i + kMatVecBlock <= in; i += kMatVecBlock) {
    const F x0 = Load(x + i), x1 = Load(x + i + kLanes);
    for (int r = 0; r < kRows; ++r) {
      a[r] += Load(w + r * in + i) * x0;
      b[r] += Load(w + r * in + i + kLanes) * x1;
    }
  }
  for (; i < in; i += kLanes) {
    const int64_t n = in - i < kLanes ? in - i : kLanes;
    const F xs = LoadPart(x + i, n);
    for (int r = 0; r < kRows; ++r) a[r] += LoadPart(w + r * in + i, n) * xs;
  }
  for (int r = 0; r < kRows; ++r) sums[r] = Sum(a[r] + b[r]);
}

template <int kRows>
void Dots(const BFloat16* w, const float* x, int64_t in, float* sums) {
  F a[kRows], b[kRows];
  for (int r = 0; r < kRows; ++r) a[r] = b[r] = F{};
  int64_t i = 0;
  for (; i + kMatVecBlock <= in; i += kMatVecBlock) {
    const F even = Load(x + i), odd = Load(x + i + kLanes);
    for (int r = 0; r < kRows; ++r) {
      // The next rows: bf16 is used up faster than the hardware's prefetcher, which starts anew in
      // every page, brings it. Past the matrix's end a prefetch does nothing.
      __builtin_prefetch(w + (kRows + r) * in + i);
      U pairs;
      std::memcpy(&pairs, w + r * in + i, sizeof pairs);
      a[r] += (F)(pairs << 16) * even;
      b[r] += (F)(pairs & 0xffff0000u) * odd;
    }
  }
  for (; i < in; i += kLanes) {
    const int64_t n = in - i < kLanes ? in - i : kLanes;
    const F xs = LoadPart(x + i, n);
    for (int r = 0; r < kRows; ++r) a[r] += LoadPart(w + r * in + i, n) * xs;
  }
  for (int r = 0; r < kRows; ++r) sums[r] = Sum(a[r] + b[r]);
}

template <typename T>
void Finish(const MatVecParams& p, int64_t row, int64_t rows, F sums) {
  if (p.add != nullptr) sums += LoadPart(static_cast<const T*>(p.add) + row, rows);
  if (p.y_dtype == DType::kFloat32) {
    StorePart(static_cast<float*>(p.y) + row, sums, rows);
  } else {
    StorePart(static_cast<BFloat16*>(p.y) + row, sums, rows);
  }
}

template <typename T>
void Rows(const MatVecParams& p, int64_t begin, int64_t end) {
  constexpr int kRows = 4;
  const T* w = static_cast<const T*>(p.w);
  int64_t row = begin;
  float sums[kLanes] = {};
  for (; row + kRows <= end; row += kRows) {
    Dots<kRows>(w + row * p.in, p.x, p.in, sums);
    Finish<T>(p, row, kRows, Load(sums));
  }
  for (; row < end; ++row) {
    Dots<1>(w + row * p.in, p.x, p.in, sums);
    Finish<T>(p, row, 1, Load(sums));
  }
}

}  // namespace

void MatVec(const MatVecParams& p, int64_t begin, int64_t end) {
  p.dtype == DType::kFloat32 ? Rows<float>(p, begin, end) : Rows<BFloat16>(p, begin, end);
}

}  // namespace ll::LL_SIMD
