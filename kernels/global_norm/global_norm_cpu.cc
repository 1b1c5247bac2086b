#include "kernels/common/simd.h"
#include "kernels/global_norm/global_norm.h"

namespace ll::LL_SIMD {

void SumSquares(const SumSquaresParams& p, int64_t begin, int64_t end) {
  typedef double D8 __attribute__((vector_size(64)));
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * kSumSquaresBlock;
    const int64_t last = first + kSumSquaresBlock < p.size ? first + kSumSquaresBlock : p.size;
    D8 sums{};
    int64_t i = first;
    for (; i + 8 <= last; i += 8) {
      D8 x;
      for (int k = 0; k < 8; ++k) x[k] = p.x[i + k];
      sums += x * x;
    }
    double total = 0;
    for (int k = 0; k < 8; ++k) total += sums[k];
    for (; i < last; ++i) total += static_cast<double>(p.x[i]) * p.x[i];
    p.block_sums[block] = total;
  }
}

}  // namespace ll::LL_SIMD
