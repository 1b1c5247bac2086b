#include "kernels/merge_attention/merge_attention.h"

#include <math.h>

#include "kernels/common/simd.h"

namespace ll::LL_SIMD {

void MergeAttention(const MergeAttentionParams& p, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    for (int64_t head = 0; head < p.heads; ++head) {
      float* lse = p.lse + head * p.lse_stride + token;
      const float mine = *lse, theirs = p.part_lse[head * p.part_lse_stride + token];
      const float both = (mine > theirs ? mine : theirs) + log1pf(expf(-fabsf(mine - theirs)));
      const float keep = expf(mine - both), take = expf(theirs - both);
      const int64_t row = (token * p.heads + head) * p.dim;
      float* out = p.out + row;
      const float* part = p.part + row;
      ForVectors(
          p.dim, [&](int64_t i) { Store(out + i, Load(out + i) * keep + Load(part + i) * take); },
          [&](int64_t i, int64_t n) {
            StorePart(out + i, LoadPart(out + i, n) * keep + LoadPart(part + i, n) * take, n);
          });
      *lse = both;
    }
  }
}

}  // namespace ll::LL_SIMD
