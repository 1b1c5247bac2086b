// In which order the rows of a token file are visited: a seeded permutation per pass over the data,
// so that the row at any point of training follows from (seed, index) alone and a resumed run needs
// no state but the index.
#pragma once

#include <cstdint>
#include <vector>

namespace ll {

// Not thread-safe: it keeps the permutation of the pass last asked for.
class RowOrder {
 public:
  // `rows` > 0. Without `shuffle` rows come in file order.
  RowOrder(int64_t rows, uint64_t seed, bool shuffle);

  // The file's row for the index-th row of training, counted from 0 over all passes.
  int64_t At(int64_t index);
  int64_t rows() const { return rows_; }

 private:
  void Permute(int64_t pass);

  const int64_t rows_;
  const uint64_t seed_;
  const bool shuffle_;
  int64_t pass_ = -1;  // whose permutation `order_` holds
  std::vector<int64_t> order_;
};

}  // namespace ll
