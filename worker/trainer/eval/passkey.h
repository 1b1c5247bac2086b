// Pass key retrieval: a number hidden in repeated sentences, asked for at the end. The prompt is
// LongLoRA's (passkey_retrivial.py), the numbers are drawn by this project's generator.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/eval/retrieval.h"

namespace ll {

struct PasskeyPrompt {
  std::string text;
  std::string key;  // a decimal from 1 to 49999
};

// What (garbage_chars, seed) alone decide: the key, and the garbage in front of it where the
// protocol leaves that to chance, uniform in [0, garbage_chars).
struct PasskeyDraw {
  int64_t prefix_chars = 0;
  std::string key;
};
PasskeyDraw DrawPasskey(int64_t garbage_chars, uint64_t seed);

// `garbage_chars` characters of the repeated sentences around the line with the key,
// `prefix_chars` of them in front of it.
PasskeyPrompt MakePasskeyPrompt(int64_t garbage_chars, int64_t prefix_chars,
                                const std::string& key);

// Characters of garbage for a prompt of about `tokens` tokens: 3.75 a token, in whole 1024s.
int64_t LongLoraGarbageChars(int64_t tokens);

struct PasskeyOptions {
  // Given: a grid of prompts of at most that many tokens, answer included, with the key at `depths`
  // places from the start to the end, num_tests prompts a cell. Empty: LongLoRA's protocol, lengths
  // of about interval, 2 interval, … max_tokens, num_tests prompts each with the key anywhere.
  std::vector<int64_t> lengths;
  int64_t depths = 5;
  int64_t max_tokens = 32000, interval = 1000;
  int64_t num_tests = 10;
  uint64_t seed = 0;  // prompts are drawn with seed, seed + 1, …
};

// All prompts. Right is a completion whose ids are all those of the key as the prompt's
// continuation, as LongLoRA judges. Errors: a length too short for a prompt.
absl::StatusOr<std::vector<RetrievalTest>> MakePasskeyTests(const PasskeyOptions& options,
                                                            EncodeFn encode);

struct PasskeyResult {
  bool grid = false;
  Score all;
  std::vector<LengthScore> by_length;  // LongLoRA's protocol: length = mean tokens of its prompts
  struct Cell {
    int64_t length = 0;
    double depth = 0;  // 0 … 1
    Score score;
  };
  std::vector<Cell> cells;  // grid only
  int64_t effective_context_length = 0;
  double seconds = 0;
};
nlohmann::ordered_json ToJson(const PasskeyResult& result);

// Makes and runs them. Collective.
absl::StatusOr<PasskeyResult> RunPasskey(const PasskeyOptions& options, EncodeFn encode,
                                         CompleteFn complete, Comm& comm,
                                         const ProgressFn& progress = nullptr);

}  // namespace ll
