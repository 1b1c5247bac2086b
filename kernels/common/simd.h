// Sixteen floats at a time, written once with GCC's vector types and compiled for several
// instruction sets.
//
// A kernel source (`<op>_cpu.cc`) is compiled once per instruction set with LL_SIMD naming the
// namespace (simd_generic, simd_avx2, simd_avx512); common/dispatch.h picks one at run time. Such a
// source must include only this header, plain C headers and its own params struct: an inline
// function of the standard library compiled here with AVX-512 could become the one copy that the
// linker keeps for the whole program.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/dtype.h"

namespace ll::LL_SIMD {

constexpr int kLanes = 16;
typedef float F __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));
typedef uint32_t U __attribute__((vector_size(64)));
typedef uint16_t H __attribute__((vector_size(32)));

static inline F Splat(float x) { return F{} + x; }

static inline F Load(const float* p) {
  F v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
static inline F Load(const BFloat16* p) {
  H h;
  std::memcpy(&h, p, sizeof h);
  return (F)(__builtin_convertvector(h, U) << 16);
}
static inline void Store(float* p, F v) { std::memcpy(p, &v, sizeof v); }
// Rounds to nearest even; a NaN stays a NaN.
static inline void Store(BFloat16* p, F v) {
  const U u = (U)v;
  U r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const I nan = v != v;
  r = nan ? (U{} + 0x7fc0u) : r;
  const H h = __builtin_convertvector(r, H);
  std::memcpy(p, &h, sizeof h);
}

// The first n < 16 elements; the other lanes are `fill`.
template <typename T>
static inline F LoadPart(const T* p, int64_t n, float fill = 0) {
  T buffer[kLanes];
  std::memset(buffer, 0, sizeof buffer);
  std::memcpy(buffer, p, n * sizeof(T));
  F v = Load(buffer);
  for (int64_t i = n; i < kLanes; ++i) v[i] = fill;
  return v;
}
template <typename T>
static inline void StorePart(T* p, F v, int64_t n) {
  T buffer[kLanes];
  Store(buffer, v);
  std::memcpy(p, buffer, n * sizeof(T));
}

// Calls full(i) for each whole vector of [0, n) and part(i, count) for the rest.
template <typename Full, typename Part>
static inline void ForVectors(int64_t n, Full full, Part part) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) full(i);
  if (i < n) part(i, n - i);
}

static inline float Sum(F v) {
  typedef float F8 __attribute__((vector_size(32)));
  F8 halves[2];
  std::memcpy(halves, &v, sizeof v);
  const F8 a = halves[0] + halves[1];
  return ((a[0] + a[4]) + (a[1] + a[5])) + ((a[2] + a[6]) + (a[3] + a[7]));
}
static inline F Max(F a, F b) { return a > b ? a : b; }
static inline F Min(F a, F b) { return a < b ? a : b; }
static inline float MaxOf(F v) {
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

// e^x by Cody-Waite reduction and a degree-6 Taylor polynomial on [-ln2/2, ln2/2]; relative error
// below 2e-7. Below -87 the result is e^-87 (1.6e-38), above 88 e^88. NaN gives an unspecified
// finite value.
static inline F Exp(F x) {
  x = Min(Max(x, Splat(-87.0f)), Splat(88.0f));
  const F magic = Splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
  const F shifted = x * 1.44269504f + magic;
  const F n = shifted - magic;
  const F r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  F p = Splat(1.0f / 720);
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const I exponent = ((I)shifted - (I)magic) << 23;
  return (F)((I)p + exponent);
}

}  // namespace ll::LL_SIMD
