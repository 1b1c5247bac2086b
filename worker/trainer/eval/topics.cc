#include "worker/trainer/eval/topics.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "worker/trainer/eval/dialogue.h"

namespace ll {
namespace {

// Room for a sentence around the topic's name.
constexpr int64_t kAnswerTokens = 32;
// As in LongChat's data a topic takes some hundred tokens; a short dialogue still has three.
constexpr int64_t kTokensATopic = 600, kLeastTopics = 3;

constexpr absl::string_view kHeader =
    "Below is the record of a conversation between a USER and an ASSISTANT about several topics, "
    "one after the other. The USER opens each one with the words \"I would like to discuss the "
    "topic of\". Remember the topics and their order: at the end of the record there is a question "
    "about the first one.\n\n";
constexpr absl::string_view kTopicQuestion =
    "\nThe record ends here. What is the first topic we discussed? Answer with the name of the "
    "topic only.";

std::string TurnText(const DialogueTurn& turn) {
  return absl::StrCat("USER: ", turn.user, "\nASSISTANT: ", turn.assistant, "\n");
}

std::string PromptText(absl::Span<const std::string> turns) {
  std::string text(kHeader);
  for (const std::string& turn : turns) text += turn;
  absl::StrAppend(&text, kTopicQuestion);
  return text;
}

absl::StatusOr<RetrievalTest> MakeTest(int64_t length, uint64_t seed, EncodeFn encode,
                                       DecodeFn decode) {
  // What a prompt has beside its text: BOS, the marks of a chat template.
  LL_ASSIGN_OR_RETURN(const std::vector<int32_t> nothing, encode(""));
  const auto tokens_of = [&](const std::string& turn) -> absl::StatusOr<int64_t> {
    LL_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, encode(turn));
    return std::max<int64_t>(1, static_cast<int64_t>(ids.size() - nothing.size()));
  };
  LL_ASSIGN_OR_RETURN(const int64_t turn_tokens, tokens_of(TurnText(Dialogue(seed, 1).Next())));
  const int64_t turns_a_topic =
      std::max<int64_t>(1, std::min(kTokensATopic, length / kLeastTopics) / turn_tokens);
  Dialogue dialogue(seed, turns_a_topic);
  std::vector<std::string> turns;
  std::vector<size_t> topic_of;
  for (int64_t tokens = 0; tokens < length;) {
    const DialogueTurn turn = dialogue.Next();
    turns.push_back(TurnText(turn));
    topic_of.push_back(turn.topic);
    LL_ASSIGN_OR_RETURN(const int64_t more, tokens_of(turns.back()));
    tokens += more;
  }
  RetrievalTest test;
  test.new_tokens = kAnswerTokens;
  for (;;) {
    LL_ASSIGN_OR_RETURN(test.prompt, encode(PromptText(turns)));
    if (static_cast<int64_t>(test.prompt.size()) + kAnswerTokens <= length) break;
    turns.pop_back();
    if (turns.empty() || topic_of[turns.size() - 1] == 0) {
      return MakeFieldError({"topic_lengths", "room for two topics and a question",
                             absl::StrCat(length, " tokens"), "give a greater length"});
    }
  }
  test.is_right = [topic = NormalizeAnswer(dialogue.topics().front()),
                   decode](absl::Span<const int32_t> ids) {
    return absl::StrContains(NormalizeAnswer(decode(ids)), topic);
  };
  return test;
}

}  // namespace

std::string NormalizeAnswer(absl::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isalnum(byte) || byte >= 0x80) {
      out += absl::ascii_tolower(byte);
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  absl::StripTrailingAsciiWhitespace(&out);
  return out;
}

absl::StatusOr<std::vector<RetrievalTest>> MakeTopicTests(const TopicsOptions& options,
                                                          EncodeFn encode, DecodeFn decode) {
  std::vector<RetrievalTest> tests;
  for (size_t l = 0; l < options.lengths.size(); ++l) {
    for (int64_t t = 0; t < options.num_tests; ++t) {
      LL_ASSIGN_OR_RETURN(
          RetrievalTest test,
          MakeTest(options.lengths[l], options.seed + static_cast<uint64_t>(t), encode, decode));
      test.length_index = l;
      tests.push_back(std::move(test));
    }
  }
  return tests;
}

absl::StatusOr<TopicsResult> RunTopics(const TopicsOptions& options, EncodeFn encode,
                                       DecodeFn decode, CompleteFn complete, Comm& comm,
                                       const ProgressFn& progress) {
  const absl::Duration start = RealClock().Steady();
  LL_ASSIGN_OR_RETURN(const std::vector<RetrievalTest> tests,
                      MakeTopicTests(options, encode, decode));
  LL_ASSIGN_OR_RETURN(const std::vector<bool> passed, RunTests(tests, complete, comm, progress));
  TopicsResult result;
  for (const int64_t length : options.lengths) result.by_length.push_back({length, {}});
  for (size_t i = 0; i < tests.size(); ++i) {
    for (Score* score : {&result.all, &result.by_length[tests[i].length_index].score}) {
      score->tests += 1;
      score->passed += passed[i] ? 1 : 0;
    }
  }
  result.seconds = absl::ToDoubleSeconds(RealClock().Steady() - start);
  return result;
}

nlohmann::ordered_json ToJson(const TopicsResult& result) {
  nlohmann::ordered_json json = {{"accuracy", result.all.accuracy()},
                                 {"tests", result.all.tests},
                                 {"seconds", result.seconds}};
  nlohmann::ordered_json& by_length = json["by_length"] = nlohmann::ordered_json::array();
  for (const LengthScore& at : result.by_length) {
    by_length.push_back(
        {{"length", at.length}, {"tests", at.score.tests}, {"accuracy", at.score.accuracy()}});
  }
  return json;
}

}  // namespace ll
