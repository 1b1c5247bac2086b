// What every reader of spans of tokens promises.
#pragma once

#include "base/check.h"
#include "model/text/token_file.h"

namespace ll {

// Aborts unless the spans rise and lie in [0, size).
inline void CheckSpans(const TokenSpans& spans, int64_t size) {
  int64_t last = 0;
  for (const auto& [start, end] : spans) {
    LL_CHECK(last <= start && start <= end && end <= size);
    last = end;
  }
}

}  // namespace ll
