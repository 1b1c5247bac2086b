#include "llctl/output.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "llctl/errors.h"
#include "llctl/proto_json.h"
#include "proto/jobs.pb.h"

namespace ll {
namespace {

TEST(ProtoJsonTest, IntegersAreNumbersAndValuesWithoutPresenceAreThere) {
  v1::Progress progress;
  progress.set_step(5'000'000'000);
  progress.mutable_time()->set_seconds(1'700'000'000);
  const auto json = ProtoToJson(progress);
  EXPECT_EQ(json["step"].get<int64_t>(), 5'000'000'000);
  EXPECT_EQ(json["loss"].get<double>(), 0.0);
  EXPECT_EQ(json["time"], "2023-11-14T22:13:20.000Z");
  EXPECT_FALSE(json.contains("mfu"));
}

TEST(ProtoJsonTest, UnsetMessagesAbsentOptionalsAndZeroEnumsHaveNoKey) {
  v1::Job job;
  job.mutable_spec()->set_seed(0);
  const auto json = ProtoToJson(job);
  EXPECT_FALSE(json.contains("state"));
  EXPECT_FALSE(json.contains("started"));
  EXPECT_FALSE(json["spec"].contains("gpus"));
  EXPECT_EQ(json["spec"]["seed"], 0);
  EXPECT_TRUE(json["workers"].is_array());
}

TEST(ProtoJsonTest, MapsStructsAndLists) {
  v1::Job job;
  (*job.mutable_spec()->mutable_labels())["team"] = "nlp";
  job.mutable_spec()->add_stages(8192);
  auto& fields = *job.mutable_result()->mutable_fields();
  fields["perplexity"].set_number_value(8.5);
  fields["tokens"].set_number_value(4096);
  fields["list"].mutable_list_value()->add_values()->set_bool_value(true);
  const auto json = ProtoToJson(job);
  EXPECT_EQ(json["spec"]["labels"]["team"], "nlp");
  EXPECT_EQ(json["spec"]["stages"][0], 8192);
  EXPECT_EQ(json["result"].dump(), R"({"list":[true],"perplexity":8.5,"tokens":4096})");
}

TEST(YamlTest, TextsStayTexts) {
  EXPECT_EQ(JsonToYaml({{"a", "no"}, {"b", 5}, {"c", {1, 2}}}),
            "a: \"no\"\nb: 5\nc:\n  - 1\n  - 2\n");
}

TEST(YamlTest, EmptyListsAndMapsStayOnTheirLine) {
  EXPECT_EQ(
      JsonToYaml({{"a", nlohmann::ordered_json::array()}, {"b", nlohmann::ordered_json::object()}}),
      "a: []\nb: {}\n");
}

TEST(SpecTextTest, LeavesOutWhatWasNotGiven) {
  v1::JobSpec spec;
  spec.set_max_steps(5);
  EXPECT_EQ(SpecText(spec), "max_steps: 5\n");
}

TEST(SizeTextTest, NamesTheRangeAndWhatIsHeld) {
  v1::Job job;
  EXPECT_EQ(SizeText(job), "1");
  job.mutable_spec()->set_gpus(4);
  EXPECT_EQ(SizeText(job), "4");
  job.mutable_spec()->set_max_gpus(8);
  EXPECT_EQ(SizeText(job), "4-8");
  for (int i = 0; i < 6; ++i) job.add_workers("w");
  EXPECT_EQ(SizeText(job), "6 of 4-8");
}

TEST(AgeTest, WholeSecondsThenLargerUnits) {
  google::protobuf::Timestamp since;
  since.set_seconds(1000);
  EXPECT_EQ(AgeText(since, absl::FromUnixSeconds(1007)), "7s");
  EXPECT_EQ(AgeText(since, absl::FromUnixSeconds(990)), "0s");
  EXPECT_EQ(AgeText({}, absl::FromUnixSeconds(990)), "");
}

TEST(TableTest, AlignsByCharactersAndCutsTheLastColumn) {
  Table table({"A", "B"});
  table.Add({"é", "1234567890"});
  table.Add({"xxx", "y"});
  std::ostringstream wide, narrow;
  table.Print(wide, 0, false);
  EXPECT_EQ(wide.str(), "A    B\né    1234567890\nxxx  y\n");
  table.Print(narrow, 10, false);
  EXPECT_EQ(narrow.str(), "A    B\né    1234…\nxxx  y\n");
}

TEST(EtaTest, NeedsASpeedAndAnEnd) {
  v1::Progress progress;
  EXPECT_FALSE(Eta(progress).has_value());
  progress.set_step(10);
  progress.set_max_steps(100);
  progress.set_step_seconds(2);
  EXPECT_EQ(Eta(progress), absl::Seconds(180));
  progress.set_step(100);
  EXPECT_FALSE(Eta(progress).has_value());
}

TEST(ErrorsTest, AnErrorIsOneLine) {
  std::ostringstream err;
  PrintError(absl::InternalError("two\nlines"), /*json=*/false, err);
  EXPECT_EQ(err.str(), "llctl: error: two lines\n");
}

TEST(ErrorsTest, BytesThatAreNotUtf8StillPrint) {
  std::ostringstream err;
  PrintError(absl::InternalError("\xff"), /*json=*/true, err);
  EXPECT_THAT(err.str(), ::testing::HasSubstr("INTERNAL"));
}

}  // namespace
}  // namespace ll
