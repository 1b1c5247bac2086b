#include "model/plan/gpu_attention.h"

#include <algorithm>

namespace ll {
namespace {

// The most of an A100, H100 or H200, which have 108 and 132.
constexpr int64_t kMultiprocessors = 132;
constexpr int64_t kQueryTile = 128;  // rows are rounded up to it

int64_t RoundedUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

int64_t GpuAttentionScratchBytes(const GpuAttentionShape& s) {
  const int64_t rows = s.batch * RoundedUp(s.queries, kQueryTile),
                width = RoundedUp(s.head_dim, s.head_dim <= 128 ? 32 : 64);
  const int64_t sums =
      s.deterministic ? std::max<int64_t>(1, (kMultiprocessors - 1) / (s.batch * s.heads) + 1) : 1;
  const int64_t of_queries = s.batch * s.queries * s.heads * s.head_dim,
                of_keys = s.batch * s.keys * s.kv_heads * s.head_dim,
                of_heads_keys = s.batch * s.keys * s.heads * s.head_dim;
  return sums * rows * s.heads * width * 4 + rows * s.heads * 4 +
         2 * (3 * of_queries + 2 * of_keys + (s.heads == s.kv_heads ? 0 : 2 * of_heads_keys));
}

int64_t GpuAttentionHeads(const GpuAttentionShape& shape) {
  const int64_t group = shape.heads / shape.kv_heads;
  int64_t groups = shape.kv_heads;
  for (; groups > 1; --groups) {
    GpuAttentionShape part = shape;
    part.kv_heads = groups;
    part.heads = groups * group;
    if (GpuAttentionScratchBytes(part) <= kGpuAttentionScratch) break;
  }
  return groups * group;
}

}  // namespace ll
