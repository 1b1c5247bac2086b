#include "worker/trainer/generate/chat_request.h"

#include "base/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

AnswerOptions Defaults() {
  AnswerOptions options;
  options.generation.max_new_tokens = 7;
  options.generation.sampling.top_p = 0.5;
  options.stop_strings = {"END"};
  return options;
}

TEST(ParseChatRequest, TakesWhatIsSaidAndKeepsTheRest) {
  const auto request = ParseChatRequest(
      R"({"request_id":"r1","messages":[{"role":"user","content":"hi"}],"temperature":0.25,"seed":9,
          "stop":["a","b"]})",
      Defaults());
  LL_ASSERT_OK(request.status());
  EXPECT_EQ(request->request_id, "r1");
  ASSERT_EQ(request->messages.size(), 1u);
  EXPECT_EQ(request->messages[0].role, "user");
  EXPECT_EQ(request->messages[0].content, "hi");
  EXPECT_EQ(request->options.generation.sampling.temperature, 0.25);
  EXPECT_EQ(request->options.generation.sampling.top_p, 0.5);
  EXPECT_EQ(request->options.generation.sampling.seed, 9u);
  EXPECT_EQ(request->options.generation.max_new_tokens, 7);
  EXPECT_THAT(request->options.stop_strings, ElementsAre("a", "b"));
  const auto plain = ParseChatRequest(R"({"prompt":"once","stop":"x"})", Defaults());
  LL_ASSERT_OK(plain.status());
  EXPECT_EQ(plain->prompt, "once");
  EXPECT_THAT(plain->options.stop_strings, ElementsAre("x"));
}

TEST(ParseChatRequest, NamesWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"nonsense", "request"},
      {"[]", "request"},
      {"{}", "either a prompt or messages"},
      {R"({"prompt":"a","messages":[{"role":"user","content":"b"}]})", "both"},
      {R"({"prompt":3})", "prompt"},
      {R"({"messages":[]})", "messages"},
      {R"({"messages":[{"role":"user"}]})", "messages"},
      {R"({"messages":[{"role":1,"content":"x"}]})", "messages.role"},
      {R"({"prompt":"a","temperature":"hot"})", "temperature"},
      {R"({"prompt":"a","seed":-1})", "seed"},
      {R"({"prompt":"a","max_new_tokens":1.5})", "max_new_tokens"},
      {R"({"prompt":"a","max_new_tokens":18446744073709551615})", "max_new_tokens"},
      {R"({"prompt":"a","stop":[1]})", "stop"},
      {R"({"prompt":"a","top_q":1})", "top_q"},
  };
  for (const auto& [line, part] : cases) {
    const auto request = ParseChatRequest(line, Defaults());
    ASSERT_FALSE(request.ok()) << line;
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(request.status().message()), HasSubstr(part));
  }
}

}  // namespace
}  // namespace ll
