// Transposing bf16 tiles in registers. For kernel sources (common/simd.h).
#pragma once

#include "kernels/common/simd.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace ll::LL_SIMD {

constexpr int kTileRows = 32, kTileColumns = 16;
// A large matrix is gone through in blocks of so many groups of 32 rows and so many columns: few
// enough pages at a time for the TLB, on the side that is read and on the one that is written.
constexpr int kTransposeGroups = 8, kTransposeColumns = 64;

// One stage of a 16 x 16 transpose: swaps the off-diagonal kDistance x kDistance blocks.
template <int kDistance>
static inline void SwapBlocks(U v[kLanes]) {
  U upper, lower;
  for (int lane = 0; lane < kLanes; ++lane) {
    const bool first = (lane & kDistance) == 0;
    upper[lane] = first ? lane : kLanes + lane - kDistance;
    lower[lane] = first ? lane + kDistance : kLanes + lane;
  }
  for (int i = 0; i < kLanes; ++i) {
    if ((i & kDistance) != 0) continue;
    const U a = v[i], b = v[i + kDistance];
    v[i] = __builtin_shuffle(a, b, upper);
    v[i + kDistance] = __builtin_shuffle(a, b, lower);
  }
}

// Writes 64 bytes; past the cache where they are a whole line of it: a line that is written once,
// far from the one before, would only be fetched to be thrown out again. FinishLines() makes such
// writes visible to other threads.
static inline void StoreLine(BFloat16* y, U v, bool whole_line) {
#if defined(__AVX512F__)
  if (whole_line) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(y), (__m512i)v);
    return;
  }
#endif
  std::memcpy(y, &v, sizeof v);
}
static inline void FinishLines() {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}

// y[c][r] = x[r][c] for 32 rows and 16 columns, whose rows are `ldx` and `ldy` elements apart.
// Neighbouring rows travel as one 32-bit lane, so a column leaves as a full cache line (StoreLine).
static inline void TransposeTile(const BFloat16* x, int64_t ldx, BFloat16* y, int64_t ldy) {
  U v[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    H even, odd;
    std::memcpy(&even, x + 2 * i * ldx, sizeof even);
    std::memcpy(&odd, x + (2 * i + 1) * ldx, sizeof odd);
    v[i] = __builtin_convertvector(even, U) | __builtin_convertvector(odd, U) << 16;
  }
  SwapBlocks<8>(v);
  SwapBlocks<4>(v);
  SwapBlocks<2>(v);
  SwapBlocks<1>(v);
  const bool whole_lines =
      (reinterpret_cast<uintptr_t>(y) | static_cast<uintptr_t>(ldy * 2)) % 64 == 0;
  for (int c = 0; c < kTileColumns; ++c) StoreLine(y + c * ldy, v[c], whole_lines);
}

}  // namespace ll::LL_SIMD
