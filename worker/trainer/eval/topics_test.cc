#include "worker/trainer/eval/topics.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_matchers.h"
#include "worker/trainer/eval/dialogue.h"

namespace ll {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

absl::StatusOr<Ids> Characters(absl::string_view text) { return Ids(text.begin(), text.end()); }
std::string TextOf(absl::Span<const int32_t> ids) { return std::string(ids.begin(), ids.end()); }

constexpr absl::string_view kOpening = "USER: I would like to discuss the topic of ";

// Answers with the topic that is opened first, or last.
struct Reader {
  bool first = true;
  absl::StatusOr<Ids> operator()(absl::Span<const int32_t> prompt, int64_t) const {
    const std::string text = TextOf(prompt);
    const size_t at =
        (first ? text.find(std::string(kOpening)) : text.rfind(std::string(kOpening))) +
        kOpening.size();
    return Characters(absl::StrCat("It was: ", text.substr(at, text.find('.', at) - at), "!"));
  }
};

TopicsOptions Small() {
  TopicsOptions options;
  options.lengths = {4000, 9000};
  options.num_tests = 3;
  return options;
}

TEST(Topics, AModelThatRemembersPasses) {
  Reader reader;
  LL_ASSERT_OK_AND_ASSIGN(const TopicsResult result,
                          RunTopics(Small(), Characters, TextOf, reader, *MakeSingleComm()));
  EXPECT_EQ(result.all.tests, 6);
  EXPECT_EQ(result.all.accuracy(), 1);
  EXPECT_EQ(result.by_length[1].length, 9000);
}

TEST(Topics, TheLastTopicIsWrong) {
  Reader reader{.first = false};
  LL_ASSERT_OK_AND_ASSIGN(const TopicsResult result,
                          RunTopics(Small(), Characters, TextOf, reader, *MakeSingleComm()));
  EXPECT_EQ(result.all.passed, 0);
  EXPECT_EQ(ToJson(result)["by_length"][1]["accuracy"], 0);
}

TEST(Topics, PromptsFillTheirLengthAndEndWithTheQuestion) {
  LL_ASSERT_OK_AND_ASSIGN(const auto tests, MakeTopicTests(Small(), Characters, TextOf));
  std::set<std::string> texts;
  for (const RetrievalTest& test : tests) {
    const int64_t length = Small().lengths[test.length_index];
    const int64_t tokens = static_cast<int64_t>(test.prompt.size()) + test.new_tokens;
    EXPECT_LE(tokens, length);
    EXPECT_GT(tokens, length - 800);  // a turn of that many characters
    const std::string text = TextOf(test.prompt);
    EXPECT_THAT(text, HasSubstr("What is the first topic we discussed?"));
    texts.insert(text);
  }
  EXPECT_EQ(texts.size(), tests.size());
  TopicsOptions options = Small();
  options.lengths = {500};
  EXPECT_THAT(MakeTopicTests(options, Characters, TextOf),
              StatusIs(absl::StatusCode::kInvalidArgument, "topic_lengths: expected room"));
}

TEST(Topics, AnswersAreComparedWithoutCaseAndPunctuation) {
  EXPECT_EQ(NormalizeAnswer("  The Rings,  of\n\"Saturn\"!"), "the rings of saturn");
  EXPECT_EQ(NormalizeAnswer("..."), "");
}

TEST(Dialogue, ASeedDecidesEveryWordAndAShorterOneIsAPrefix) {
  Dialogue a(7, 3), b(7, 3), other(8, 3);
  bool differs = false;
  for (int i = 0; i < 500; ++i) {  // beyond the bundled topics
    const DialogueTurn x = a.Next(), y = b.Next(), z = other.Next();
    EXPECT_EQ(x.user, y.user);
    EXPECT_EQ(x.assistant, y.assistant);
    EXPECT_EQ(x.topic, static_cast<size_t>(i / 3));
    EXPECT_EQ(absl::StrContains(x.user, "discuss the topic of"), i % 3 == 0);
    differs = differs || x.user != z.user;
  }
  EXPECT_TRUE(differs);
  const std::set<std::string> topics(a.topics().begin(), a.topics().end());
  EXPECT_EQ(topics.size(), a.topics().size()) << "a topic came twice under one name";
}

}  // namespace
}  // namespace ll
