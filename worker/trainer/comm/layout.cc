#include "base/check.h"
#include "worker/trainer/comm/comm.h"

namespace ll {

RankLayout LayoutOf(int rank, int world_size, int context_size) {
  LL_CHECK(context_size >= 1 && world_size % context_size == 0);
  return {world_size / context_size, context_size, rank / context_size, rank % context_size};
}

std::vector<int> ContextRanks(const RankLayout& layout) {
  std::vector<int> ranks;
  for (int i = 0; i < layout.context_size; ++i)
    ranks.push_back(layout.data * layout.context_size + i);
  return ranks;
}

}  // namespace ll
