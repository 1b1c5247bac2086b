// Pure, thread-safe.
#pragma once

#include <algorithm>
#include <vector>

namespace ll {

// Of two in the middle their mean; of none 0.
inline double MedianOf(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

}  // namespace ll
