#include "worker/trainer/data/windows.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"

namespace ll {
namespace {

std::vector<Window> OfficialWindows(int64_t tokens, int64_t seq_len, int64_t stride) {
  std::vector<Window> windows;
  for (int64_t begin = 0; begin < tokens - seq_len; begin += stride)
    windows.push_back({begin, begin + seq_len, begin + 1});
  if (!windows.empty()) windows.pop_back();
  return windows;
}

std::vector<Window> ExactWindows(int64_t tokens, int64_t seq_len, int64_t stride) {
  std::vector<Window> windows;
  if (tokens < seq_len) return windows;
  stride = std::min(stride, seq_len);
  for (int64_t begin = 0, scored = 0; scored < tokens; begin += stride) {
    const Window window{begin, std::min(begin + seq_len, tokens), std::max(scored, begin + 1)};
    scored = window.end;
    if (window.first_scored < window.end) windows.push_back(window);
  }
  return windows;
}

}  // namespace

absl::StatusOr<std::vector<Window>> PlanWindows(int64_t tokens, int64_t seq_len, int64_t stride,
                                                WindowMode mode) {
  LL_CHECK(seq_len >= 2 && stride >= 1);
  const bool official = mode == WindowMode::kOfficial;
  std::vector<Window> windows =
      official ? OfficialWindows(tokens, seq_len, stride) : ExactWindows(tokens, seq_len, stride);
  if (windows.empty()) {
    const int64_t needed = official ? seq_len + stride + 1 : seq_len;
    return MakeFieldError(
        {"data", absl::StrCat("at least ", needed, " tokens for one window of ", seq_len),
         absl::StrCat(tokens),
         official ? "mode official drops the last window; mode exact keeps it" : ""});
  }
  return windows;
}

}  // namespace ll
