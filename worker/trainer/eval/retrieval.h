// What the retrieval tests (passkey.h, topics.h) share: prompts made once, completed by the ranks
// in turn, judged, and counted by length.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/trainer/comm/comm.h"

namespace ll {

// The ids of a text as a prompt starts: with BOS where the tokenizer puts one.
using EncodeFn = absl::FunctionRef<absl::StatusOr<std::vector<int32_t>>(absl::string_view text)>;
// The greedy continuation of a prompt: `new_tokens` ids, fewer where the model ends by itself.
using CompleteFn = absl::FunctionRef<absl::StatusOr<std::vector<int32_t>>(
    absl::Span<const int32_t> prompt, int64_t new_tokens)>;
// Told after each of this rank's prompts.
using ProgressFn = std::function<void(int64_t done, int64_t total)>;

struct RetrievalTest {
  size_t length_index = 0;  // of the lengths asked for
  size_t depth_index = 0;   // 0 where there is no grid
  std::vector<int32_t> prompt;
  int64_t new_tokens = 0;
  std::function<bool(absl::Span<const int32_t> completion)> is_right;
};

// Whether each test was passed, in the order given. The tests are sorted so that neighbours share
// long prefixes, which a completer with a cache computes once; rank r takes every world-th of them
// and every rank gets all answers, the same for any number of ranks. Collective.
absl::StatusOr<std::vector<bool>> RunTests(absl::Span<const RetrievalTest> tests,
                                           CompleteFn complete, Comm& comm,
                                           const ProgressFn& progress);

struct Score {
  int64_t tests = 0, passed = 0;
  double accuracy() const {
    return tests == 0 ? 0 : static_cast<double>(passed) / static_cast<double>(tests);
  }
};

struct LengthScore {
  int64_t length = 0;  // tokens
  Score score;
};

// The largest length with an accuracy of at least 0.9 that every shorter one reaches too; 0 where
// the shortest does not.
inline constexpr double kEffectiveAccuracy = 0.9;
int64_t EffectiveContextLength(std::vector<LengthScore> by_length);

}  // namespace ll
