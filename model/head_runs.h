// Which query heads attend alike, without torch.
#pragma once

#include <cstdint>
#include <vector>

namespace ll {

// Consecutive query heads that attend in the same segments: heads [q_begin, q_end) read KV heads
// [kv_begin, kv_end), an equal number of query heads for each. Where the half of the heads cuts a
// KV group (9 query heads on 3 KV heads) a KV head belongs to two runs; the later one has add_kv
// set and adds its dK, dV to the earlier one's.
struct HeadRun {
  int64_t q_begin = 0, q_end = 0;
  int64_t kv_begin = 0, kv_end = 0;
  bool shifted = false;
  bool add_kv = false;
  bool operator==(const HeadRun&) const = default;
};

// heads % kv_heads == 0. Without `halves` there is one run of all heads.
std::vector<HeadRun> MakeHeadRuns(int64_t heads, int64_t kv_heads, bool halves);

}  // namespace ll
