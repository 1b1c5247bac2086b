#include "base/status_matchers.h"
#include "model/report/eval_report.h"
#include "model/report/heat_map.h"

namespace ll {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::ordered_json;

const char* const kGrid =
    R"({"task": "passkey", "accuracy": 0.625, "effective_context_length": 128.0,
  "by_length": [{"length": 128, "tests": 2, "accuracy": 1.0}, {"length": 256, "tests": 2, "accuracy": 0.25}],
  "grid": [{"length": 128, "depth": 0.0, "accuracy": 1.0}, {"length": 128, "depth": 0.5, "accuracy": 1.0},
           {"length": 256, "depth": 0.0, "accuracy": 0.5}, {"length": 256, "depth": 0.5, "accuracy": 0.0}]})";

TEST(EvalReport, FieldsThenTablesThenTheGridByDepthAndLength) {
  EXPECT_EQ(ReportText(ReportOf(Json::parse(kGrid))),
            "task                      passkey\n"
            "accuracy                  0.625\n"
            "effective_context_length  128\n"
            "\nby_length\n"
            "LENGTH  TESTS  ACCURACY\n"
            "128     2      1\n"
            "256     2      0.25\n"
            "\ngrid: accuracy by depth and length\n"
            "DEPTH  128   256\n"
            "0%     1.00  0.50\n"
            "50%    1.00  0.00\n");
}

TEST(EvalReport, ObjectsBecomeFieldsUnderTheirName) {
  const EvalReport report = ReportOf(Json::parse(
      R"({"compare_base": {"difference": 0.25, "base": {"perplexity": 3}}, "odd": [1]})"));
  EXPECT_EQ(report.fields,
            (std::vector<std::pair<std::string, std::string>>{
                {"compare_base.difference", "0.25"}, {"compare_base.base.perplexity", "3"}}));
  EXPECT_TRUE(report.tables.empty());
}

TEST(EvalReport, WhatIsNoObjectIsEmpty) {
  EXPECT_EQ(ReportText(ReportOf(Json::array({1, 2}))), "");
  EXPECT_EQ(ReportText(ReportOf(Json())), "");
}

TEST(PasskeySvg, ACellForEachLengthAndDepth) {
  LL_ASSERT_OK_AND_ASSIGN(const std::string svg, PasskeySvg(Json::parse(kGrid)));
  EXPECT_THAT(svg, testing::StartsWith("<svg xmlns="));
  EXPECT_THAT(svg, testing::EndsWith("</svg>\n"));
  size_t cells = 0;
  for (size_t at = svg.find("stroke="); at != svg.npos; at = svg.find("stroke=", at + 1)) ++cells;
  EXPECT_EQ(cells, 4u);
  EXPECT_THAT(svg, HasSubstr("#1a9850"));  // right
  EXPECT_THAT(svg, HasSubstr("#d73027"));  // wrong
  EXPECT_THAT(svg, HasSubstr(">0.50<"));
  EXPECT_THAT(svg, HasSubstr(">50%<"));
}

TEST(PasskeySvg, WithoutAGridItIsOneRow) {
  Json result = Json::parse(kGrid);
  result.erase("grid");
  LL_ASSERT_OK_AND_ASSIGN(const std::string svg, PasskeySvg(result));
  EXPECT_THAT(svg, HasSubstr(">anywhere<"));
  EXPECT_THAT(PasskeySvg(Json::parse(R"({"perplexity": 3})")),
              StatusIs(absl::StatusCode::kInvalidArgument, "passkey"));
}

TEST(HeatMap, TextIsEscapedAndMissingValuesAreEmpty) {
  const std::string svg = HeatMapSvg({"a < b & c", "x", "y", {"1"}, {"r"}, {{std::nullopt}}});
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; c"));
  EXPECT_THAT(svg, HasSubstr("#eeeeee"));
  EXPECT_THAT(svg, Not(HasSubstr("a < b")));
}

}  // namespace
}  // namespace ll
