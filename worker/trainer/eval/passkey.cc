#include "worker/trainer/eval/passkey.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/ids.h"
#include "base/status_macros.h"

namespace ll {
namespace {

// The wording is the protocol: another would measure something else.
constexpr absl::string_view kTask =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there.";
constexpr absl::string_view kGarbage =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";
constexpr absl::string_view kQuestion = "What is the pass key? The pass key is";

std::string Garbage(int64_t chars) {
  std::string text;
  text.reserve(static_cast<size_t>(chars) + kGarbage.size() + 1);
  while (static_cast<int64_t>(text.size()) < chars) absl::StrAppend(&text, kGarbage, " ");
  text.resize(static_cast<size_t>(chars));
  return text;
}

double DepthOf(size_t index, int64_t depths) {
  return depths == 1 ? 0.5 : static_cast<double>(index) / static_cast<double>(depths - 1);
}

// The ids of the prompt, and those of the key behind it: where a tokenizer joins the last character
// of the one with the first of the other, the join belongs to the key.
absl::StatusOr<RetrievalTest> MakeTest(const PasskeyPrompt& prompt, EncodeFn encode) {
  LL_ASSIGN_OR_RETURN(const std::vector<int32_t> asked, encode(prompt.text));
  LL_ASSIGN_OR_RETURN(std::vector<int32_t> answered,
                      encode(absl::StrCat(prompt.text, " ", prompt.key)));
  const auto end = std::mismatch(asked.begin(), asked.end(), answered.begin(), answered.end());
  std::vector<int32_t> key(end.second, answered.end());
  RetrievalTest test;
  test.prompt.assign(answered.begin(), end.second);
  test.new_tokens = static_cast<int64_t>(key.size());
  test.is_right = [key = std::move(key)](absl::Span<const int32_t> completion) {
    return completion == absl::MakeConstSpan(key);
  };
  return test;
}

int64_t TokensOf(const RetrievalTest& test) {
  return static_cast<int64_t>(test.prompt.size()) + test.new_tokens;
}

absl::StatusOr<int64_t> TokensAt(int64_t garbage_chars, EncodeFn encode) {
  LL_ASSIGN_OR_RETURN(
      const RetrievalTest test,
      MakeTest(MakePasskeyPrompt(garbage_chars, garbage_chars / 2, "49999"), encode));
  return TokensOf(test);
}

// The most garbage, about, with which a prompt and its answer have at most `length` tokens.
absl::StatusOr<int64_t> FitGarbage(int64_t length, EncodeFn encode) {
  // Tokens at the key's place differ from prompt to prompt.
  constexpr int64_t kSpare = 4;
  LL_ASSIGN_OR_RETURN(const int64_t least, TokensAt(0, encode));
  if (least + kSpare > length) {
    return MakeFieldError({"passkey_lengths",
                           absl::StrCat("at least ", least + kSpare, " tokens for a prompt"),
                           absl::StrCat(length)});
  }
  int64_t low = 0, high = 1024;
  for (;; low = high, high *= 2) {
    LL_ASSIGN_OR_RETURN(const int64_t tokens, TokensAt(high, encode));
    if (tokens + kSpare > length) break;
  }
  // A prompt of a few tokens less is as good.
  while (high - low > std::max<int64_t>(1, low / 512)) {
    const int64_t middle = low + (high - low) / 2;
    LL_ASSIGN_OR_RETURN(const int64_t tokens, TokensAt(middle, encode));
    (tokens + kSpare <= length ? low : high) = middle;
  }
  return low;
}

absl::Status AddGrid(const PasskeyOptions& options, EncodeFn encode,
                     std::vector<RetrievalTest>& tests) {
  for (size_t l = 0; l < options.lengths.size(); ++l) {
    LL_ASSIGN_OR_RETURN(const int64_t chars, FitGarbage(options.lengths[l], encode));
    for (size_t d = 0; d < static_cast<size_t>(options.depths); ++d) {
      const int64_t prefix = std::llround(DepthOf(d, options.depths) * static_cast<double>(chars));
      for (int64_t t = 0; t < options.num_tests; ++t) {
        const std::string key =
            DrawPasskey(chars + prefix, options.seed + static_cast<uint64_t>(t)).key;
        LL_ASSIGN_OR_RETURN(RetrievalTest test,
                            MakeTest(MakePasskeyPrompt(chars, prefix, key), encode));
        test.length_index = l;
        test.depth_index = d;
        tests.push_back(std::move(test));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status AddLongLora(const PasskeyOptions& options, EncodeFn encode,
                         std::vector<RetrievalTest>& tests) {
  for (int64_t l = 0; l < options.max_tokens / options.interval; ++l) {
    const int64_t chars = LongLoraGarbageChars((l + 1) * options.interval);
    for (int64_t t = 0; t < options.num_tests; ++t) {
      const PasskeyDraw draw = DrawPasskey(chars, options.seed + static_cast<uint64_t>(t));
      LL_ASSIGN_OR_RETURN(RetrievalTest test,
                          MakeTest(MakePasskeyPrompt(chars, draw.prefix_chars, draw.key), encode));
      test.length_index = static_cast<size_t>(l);
      tests.push_back(std::move(test));
    }
  }
  return absl::OkStatus();
}

PasskeyResult Count(const PasskeyOptions& options, const std::vector<RetrievalTest>& tests,
                    const std::vector<bool>& passed) {
  PasskeyResult result;
  result.grid = !options.lengths.empty();
  const size_t depths = result.grid ? static_cast<size_t>(options.depths) : 0;
  std::vector<int64_t> tokens;
  for (size_t i = 0; i < tests.size(); ++i) {
    const RetrievalTest& test = tests[i];
    if (test.length_index >= result.by_length.size()) {
      result.by_length.resize(test.length_index + 1);
      tokens.resize(test.length_index + 1);
      result.cells.resize((test.length_index + 1) * depths);
    }
    std::vector<Score*> scores = {&result.all, &result.by_length[test.length_index].score};
    if (result.grid)
      scores.push_back(&result.cells[test.length_index * depths + test.depth_index].score);
    for (Score* score : scores) {
      score->tests += 1;
      score->passed += passed[i] ? 1 : 0;
    }
    tokens[test.length_index] += static_cast<int64_t>(test.prompt.size());
  }
  for (size_t l = 0; l < result.by_length.size(); ++l) {
    LengthScore& at = result.by_length[l];
    at.length = result.grid ? options.lengths[l] : tokens[l] / at.score.tests;
    for (size_t d = 0; d < depths; ++d) {
      result.cells[l * depths + d].length = at.length;
      result.cells[l * depths + d].depth = DepthOf(d, options.depths);
    }
  }
  result.effective_context_length = EffectiveContextLength(result.by_length);
  return result;
}

}  // namespace

PasskeyDraw DrawPasskey(int64_t garbage_chars, uint64_t seed) {
  // Two draws separate the streams of (seed, chars) and (seed + 1, chars - 1).
  SeededRandom mixer(seed);
  SeededRandom random(mixer.Next() ^ SeededRandom(static_cast<uint64_t>(garbage_chars) + 1).Next());
  PasskeyDraw draw;
  if (garbage_chars > 0)
    draw.prefix_chars = static_cast<int64_t>(random.Below(static_cast<uint64_t>(garbage_chars)));
  draw.key = absl::StrCat(1 + random.Below(49999));
  return draw;
}

PasskeyPrompt MakePasskeyPrompt(int64_t garbage_chars, int64_t prefix_chars,
                                const std::string& key) {
  const std::string line =
      absl::StrCat("The pass key is ", key, ". Remember it. ", key, " is the pass key.");
  return {absl::StrJoin({std::string(kTask), Garbage(prefix_chars), line,
                         Garbage(garbage_chars - prefix_chars), std::string(kQuestion)},
                        "\n"),
          key};
}

int64_t LongLoraGarbageChars(int64_t tokens) {
  return static_cast<int64_t>(std::floor(3.75 * static_cast<double>(tokens) / 1024)) * 1024;
}

absl::StatusOr<std::vector<RetrievalTest>> MakePasskeyTests(const PasskeyOptions& options,
                                                            EncodeFn encode) {
  std::vector<RetrievalTest> tests;
  LL_RETURN_IF_ERROR(options.lengths.empty() ? AddLongLora(options, encode, tests)
                                             : AddGrid(options, encode, tests));
  if (tests.empty()) {
    return MakeFieldError({"passkey_interval",
                           absl::StrCat("at most passkey_max_tokens (", options.max_tokens, ")"),
                           absl::StrCat(options.interval)});
  }
  return tests;
}

absl::StatusOr<PasskeyResult> RunPasskey(const PasskeyOptions& options, EncodeFn encode,
                                         CompleteFn complete, Comm& comm,
                                         const ProgressFn& progress) {
  const absl::Duration start = RealClock().Steady();
  LL_ASSIGN_OR_RETURN(const std::vector<RetrievalTest> tests, MakePasskeyTests(options, encode));
  LL_ASSIGN_OR_RETURN(const std::vector<bool> passed, RunTests(tests, complete, comm, progress));
  PasskeyResult result = Count(options, tests, passed);
  result.seconds = absl::ToDoubleSeconds(RealClock().Steady() - start);
  return result;
}

nlohmann::ordered_json ToJson(const PasskeyResult& result) {
  nlohmann::ordered_json json = {{"protocol", result.grid ? "grid" : "longlora"},
                                 {"accuracy", result.all.accuracy()},
                                 {"effective_context_length", result.effective_context_length},
                                 {"tests", result.all.tests},
                                 {"seconds", result.seconds}};
  nlohmann::ordered_json& by_length = json["by_length"] = nlohmann::ordered_json::array();
  for (const LengthScore& at : result.by_length) {
    by_length.push_back(
        {{"length", at.length}, {"tests", at.score.tests}, {"accuracy", at.score.accuracy()}});
  }
  if (!result.grid) return json;
  nlohmann::ordered_json& grid = json["grid"] = nlohmann::ordered_json::array();
  for (const PasskeyResult::Cell& cell : result.cells) {
    grid.push_back({{"length", cell.length},
                    {"depth", cell.depth},
                    {"tests", cell.score.tests},
                    {"accuracy", cell.score.accuracy()}});
  }
  return json;
}

}  // namespace ll
