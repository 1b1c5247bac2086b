#include "worker/trainer/data/row_order.h"

#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/ids.h"

namespace ll {

RowOrder::RowOrder(int64_t rows, uint64_t seed, bool shuffle)
    : rows_(rows), seed_(seed), shuffle_(shuffle) {
  LL_CHECK(rows > 0);
}

int64_t RowOrder::At(int64_t index) {
  LL_CHECK(index >= 0);
  if (!shuffle_) return index % rows_;
  if (index / rows_ != pass_) Permute(index / rows_);
  return order_[index % rows_];
}

// Fisher-Yates from the identity, so a pass does not depend on the passes before it.
void RowOrder::Permute(int64_t pass) {
  pass_ = pass;
  order_.resize(rows_);
  std::iota(order_.begin(), order_.end(), 0);
  // Two draws separate the streams of (seed, pass) and (seed + 1, pass - 1).
  SeededRandom mixer(seed_);
  SeededRandom random(mixer.Next() ^ SeededRandom(static_cast<uint64_t>(pass) + 1).Next());
  for (int64_t i = rows_ - 1; i > 0; --i) std::swap(order_[i], order_[random.Below(i + 1)]);
}

}  // namespace ll
