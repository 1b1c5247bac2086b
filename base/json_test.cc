#include "base/json.h"

#include <vector>

#include "base/status_matchers.h"

namespace ll {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(JsonTest, BuildsWhatNlohmannBuilds) {
  const std::string text =
      R"({"a": [1, -2, 3.5, true, null, "é\u0000x", {"b": {}, "c": []}], "d": 18446744073709551615, "": [[], [[0]]]})";
  LL_ASSERT_OK_AND_ASSIGN(const nlohmann::json parsed, ParseJsonObject(text));
  EXPECT_EQ(parsed, nlohmann::json::parse(text));
}

TEST(JsonTest, ErrorsSayWhere) {
  EXPECT_THAT(ParseJsonObject("{\"a\": 1,\n \"b\": }"),
              StatusIs(kInvalid, "a syntax error at line 2, column 7"));
  EXPECT_THAT(ParseJsonObject(""), StatusIs(kInvalid, "a syntax error at line 1, column 1"));
  EXPECT_THAT(ParseJsonObject("{\"a\": 1e999}"), StatusIs(kInvalid, "a number out of range"));
  EXPECT_THAT(ParseJsonObject("{\"a\": \"\xff\"}"), StatusIs(kInvalid, "a syntax error at line 1"));
  EXPECT_THAT(ParseJsonObject("{} {}"), StatusIs(kInvalid, "a syntax error"));
  EXPECT_THAT(ParseJsonObject("[1]"), StatusIs(kInvalid, "expected a JSON object, found a list"));
  EXPECT_THAT(ParseJsonObject("7"), StatusIs(kInvalid, "expected a JSON object, found another"));
}

TEST(JsonTest, RefusesAKeyGivenTwice) {
  EXPECT_THAT(ParseJsonObject(R"({"a": {"k": 1, "k": 1}})"), StatusIs(kInvalid, "k: given twice"));
  EXPECT_THAT(ParseJsonObject(R"({"\n": 1, "\u000a": 1})"), StatusIs(kInvalid, "?: given twice"));
  LL_EXPECT_OK(ParseJsonObject(R"({"a": {"k": 1}, "b": {"k": 1}})"));
}

TEST(JsonTest, RefusesDepthWithoutFollowingIt) {
  const int million = 1'000'000;
  EXPECT_THAT(ParseJsonObject("{\"a\": " + std::string(million, '[')),
              StatusIs(kInvalid, "at most 64 levels"));
  std::string objects;
  for (int i = 0; i < million; ++i) objects += "{\"a\":";
  EXPECT_THAT(ParseJsonObject(objects), StatusIs(kInvalid, "at most 64 levels"));
  LL_EXPECT_OK(ParseJsonObject("{\"a\": " + std::string(63, '[') + std::string(63, ']') + "}"));
}

TEST(JsonTest, RefusesMoreValuesThanTheReaderExpects) {
  EXPECT_THAT(ParseJsonObject("{\"a\": [1, 2, 3]}", {.max_values = 4}),
              StatusIs(kInvalid, "at most 4 JSON values"));
  LL_EXPECT_OK(ParseJsonObject("{\"a\": [1, 2, 3]}", {.max_values = 5}));
}

TEST(JsonTest, ExcerptIsOneShortLineOfAscii) {
  EXPECT_EQ(JsonExcerpt(nlohmann::json("é\n\x01")), "\"\\u00e9\\n\\u0001\"");
  EXPECT_EQ(JsonExcerpt(nlohmann::json(std::string(1000, 'x'))),
            "\"" + std::string(40, 'x') + "\"");
  EXPECT_EQ(JsonExcerpt(nlohmann::json::parse("[1, {\"a\": []}]")), "[1,{\"a\":[]}]");
  EXPECT_EQ(JsonExcerpt(nlohmann::json(std::vector<int>(1000, 5))), "a list of 1000");
}

}  // namespace
}  // namespace ll
