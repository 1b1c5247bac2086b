#include "model/head_runs.h"

#include "base/check.h"

namespace ll {

std::vector<HeadRun> MakeHeadRuns(int64_t heads, int64_t kv_heads, bool halves) {
  LL_CHECK(kv_heads > 0 && heads % kv_heads == 0);
  const int64_t ratio = heads / kv_heads, half = heads / 2;
  if (!halves || half == 0) return {{0, heads, 0, kv_heads, halves, false}};
  const int64_t cut =
      half / ratio;  // the KV head that the half cuts, or the first one of the shifted heads
  std::vector<HeadRun> runs;
  if (cut > 0) runs.push_back({0, cut * ratio, 0, cut, false, false});
  if (half % ratio == 0) {
    runs.push_back({half, heads, cut, kv_heads, true, false});
    return runs;
  }
  runs.push_back({cut * ratio, half, cut, cut + 1, false, false});
  runs.push_back({half, (cut + 1) * ratio, cut, cut + 1, true, true});
  if (cut + 1 < kv_heads)
    runs.push_back({(cut + 1) * ratio, heads, cut + 1, kv_heads, true, false});
  return runs;
}

}  // namespace ll
