// Training rows by their index, wherever they come from.
//
// Row i of training (counted over all steps) goes to data rank i mod D. Content and labels depend
// on the index alone, so a resumed run needs nothing but the number of rows consumed.
#pragma once

#include <cstdint>

#include "model/llama.h"

namespace ll {

// Not thread-safe.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // Rows in one pass over the data.
  virtual int64_t rows() const = 0;
  // Tokens and targets (predictions that count) of the index-th row of training, without reading
  // it.
  virtual int64_t TokensOf(int64_t index) = 0;
  virtual int64_t TargetsOf(int64_t index) = 0;
  virtual Row Load(int64_t index) = 0;
};

}  // namespace ll
