#include "worker/trainer/data/windows.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"

namespace ll {

absl::StatusOr<std::vector<int64_t>> WindowStarts(int64_t tokens, int64_t seq_len, int64_t stride,
                                                  WindowMode mode) {
  LL_CHECK(seq_len >= 2 && stride >= 1);
  std::vector<int64_t> starts;
  const bool official = mode == WindowMode::kOfficial;
  for (int64_t start = 0; official ? start < tokens - seq_len : start <= tokens - seq_len;
       start += stride) {
    starts.push_back(start);
  }
  if (official && !starts.empty()) starts.pop_back();
  if (starts.empty()) {
    const int64_t needed = official ? seq_len + stride + 1 : seq_len;
    return MakeFieldError(
        {"data", absl::StrCat("at least ", needed, " tokens for one window of ", seq_len),
         absl::StrCat(tokens),
         official ? "mode official drops the last window; mode exact keeps it" : ""});
  }
  return starts;
}

}  // namespace ll
