// Topic retrieval (LongChat's protocol): a long dialogue about one topic after the other, then the
// question which was the first. The sentences are this project's own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/eval/retrieval.h"

namespace ll {

struct TopicsOptions {
  std::vector<int64_t> lengths = {3000, 6000, 10000, 13000, 16000};  // tokens of the whole prompt
  int64_t num_tests = 10;                                            // dialogues a length
  uint64_t seed = 0;  // drawn with seed, seed + 1, …
};

// The text of ids.
using DecodeFn = absl::FunctionRef<std::string(absl::Span<const int32_t> ids)>;

// Lower case, punctuation and repeated space gone: what answers are compared in.
std::string NormalizeAnswer(absl::string_view text);

// All dialogues of at most `length` tokens, as many turns as fit. `encode` makes a prompt of the
// question with the record in it (a user's message in a chat template, or a plain transcript).
// Right is an answer that contains the first topic. `decode` must outlive the tests. Errors: a
// length too short for two topics.
absl::StatusOr<std::vector<RetrievalTest>> MakeTopicTests(const TopicsOptions& options,
                                                          EncodeFn encode, DecodeFn decode);

struct TopicsResult {
  Score all;
  std::vector<LengthScore> by_length;
  double seconds = 0;
};
nlohmann::ordered_json ToJson(const TopicsResult& result);

// Makes and runs them. Collective.
absl::StatusOr<TopicsResult> RunTopics(const TopicsOptions& options, EncodeFn encode,
                                       DecodeFn decode, CompleteFn complete, Comm& comm,
                                       const ProgressFn& progress = nullptr);

}  // namespace ll
