#include "model/data/doctor.h"

#include <sstream>

#include "model/data/testing.h"

namespace ll {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class DoctorTest : public DataTest {
 protected:
  DoctorReport Examine(const DoctorOptions& options) {
    auto report = ExamineData(options, *tokenizer_);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? *std::move(report) : DoctorReport();
  }
  static std::string Print(const DoctorReport& report, bool color) {
    std::ostringstream out;
    PrintDoctorReport(report, color, out);
    return out.str();
  }
  const std::unique_ptr<JsonTokenizer> tokenizer_ = ByteTokenizer();
};

TEST_F(DoctorTest, Text) {
  DoctorOptions options;
  options.inputs = {Write("a.jsonl", R"({"text": "abc"}
{"text": "abcdefgh"}
{"text": "abc"}
{"text": 7}
{"text": "a</s>b"}
)")};
  options.encode.add_eos = true;
  options.encode.threads = 2;
  options.context_length = 9;
  const DoctorReport r = Examine(options);
  EXPECT_EQ(r.records, 4);
  EXPECT_EQ(r.tokens, 4 + 9 + 4 + 4);
  EXPECT_EQ(r.bad_records, 1);
  EXPECT_THAT(r.bad_examples, ElementsAre(HasSubstr("a.jsonl:4 text: expected a text")));
  EXPECT_EQ(r.duplicates, 1);
  EXPECT_THAT(r.duplicate_examples,
              ElementsAre(testing::AllOf(HasSubstr("a.jsonl:3"), HasSubstr("a.jsonl:1"))));
  EXPECT_EQ(r.shorter_than_context, 3);
  EXPECT_EQ(r.longer_than_context, 0);
  EXPECT_EQ(r.with_special_inside, 1);
  EXPECT_EQ(r.shortest, 4);
  EXPECT_EQ(r.longest, 9);
  ASSERT_EQ(r.histogram.size(), 2u);
  EXPECT_EQ(r.histogram[0].from, 4);
  EXPECT_EQ(r.histogram[0].records, 3);
  EXPECT_EQ(r.histogram[1].to, 16);
  EXPECT_EQ(r.used_ids, 9) << "a to h and EOS";
  EXPECT_THAT(r.kinds, ElementsAre(Pair("text", 4)));
  ASSERT_EQ(r.previews.size(), 1u);
  EXPECT_EQ(r.previews[0].runs[0].text, "abc<eos>");
  EXPECT_TRUE(r.previews[0].runs[0].trained);
}

TEST_F(DoctorTest, Supervised) {
  DoctorOptions options;
  options.inputs = {Write("a.json", R"([
    {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "answer"}]},
    {"conversations": [{"from": "human", "value": "Q"}]},
    {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": " "}]}])")};
  // At most 4 tokens of an answer; an answer of white space is refused.
  options.encode.encode_sample = [](const Record& r) -> absl::StatusOr<EncodedSample> {
    EncodedSample s;
    for (const ChatMessage& m : r.messages) {
      const auto begin = static_cast<int64_t>(s.ids.size());
      for (char c : m.content.substr(0, 4)) s.ids.push_back(2 + c);
      if (m.role != "assistant") continue;
      if (m.content == " ") return absl::InvalidArgumentError("an empty answer");
      s.loss_spans.emplace_back(begin, static_cast<int64_t>(s.ids.size()));
      s.truncated_targets += static_cast<int64_t>(m.content.size()) - 4;
    }
    return s;
  };
  const DoctorReport r = Examine(options);
  EXPECT_EQ(r.records, 2);
  EXPECT_EQ(r.targets, 4);
  EXPECT_EQ(r.truncated_targets, 2);
  EXPECT_EQ(r.truncated_records, 1);
  EXPECT_EQ(r.without_target, 2);
  EXPECT_EQ(r.bad_records, 1);
  EXPECT_THAT(r.roles, UnorderedElementsAre(Pair("assistant", 2), Pair("user", 3)));
  EXPECT_THAT(Print(r, false), HasSubstr("Q⟦answ⟧"));
  EXPECT_THAT(Print(r, true), HasSubstr("Q\x1b[32mansw\x1b[0m"));
  const auto json = DoctorJson(r);
  EXPECT_EQ(json["targets"], 4);
  EXPECT_EQ(json["preview"][0]["runs"][1],
            (nlohmann::ordered_json{{"text", "answ"}, {"trained", true}}));
}

TEST_F(DoctorTest, LongDocumentsAreOneRecord) {
  std::string text;
  while (text.size() < 3000000) text += "Some line of text.\n";
  DoctorOptions options;
  options.inputs = {Write("a.txt", text), Write("b.txt", text), Write("c.txt", text + "x")};
  options.encode.threads = 2;
  const DoctorReport r = Examine(options);
  EXPECT_EQ(r.records, 3);
  EXPECT_EQ(r.tokens, static_cast<int64_t>(3 * text.size() + 1));
  EXPECT_EQ(r.duplicates, 1);
  EXPECT_THAT(r.duplicate_examples, ElementsAre(HasSubstr("b.txt")));
}

}  // namespace
}  // namespace ll
