#include "worker/agent/trainer_event.h"

#include <cmath>

#include "base/status_matchers.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

TEST(TrainerEvent, ReadsWhatDecisionsNeed) {
  auto checkpoint = ParseTrainerEvent(
      R"({"event":"checkpoint","step":40,"path":"/x/step-000040","manifest_sha256":"ab"})");
  LL_ASSERT_OK(checkpoint);
  EXPECT_EQ(checkpoint->checkpoint.step(), 40);
  EXPECT_EQ(checkpoint->checkpoint.path(), "/x/step-000040");
  EXPECT_EQ(checkpoint->checkpoint.manifest_sha256(), "ab");

  auto error = ParseTrainerEvent(
      R"({"event":"error","class":"user","field":"data","message":"cannot open x","hint":"pack it first"})");
  LL_ASSERT_OK(error);
  EXPECT_EQ(error->failure_class, v1::USER);
  EXPECT_EQ(error->message, "data: cannot open x; pack it first");
  EXPECT_FALSE(error->caused_by_rank.has_value());

  error = ParseTrainerEvent(
      R"({"event":"error","class":"infrastructure","message":"rank 2: is lost","caused_by_rank":2})");
  LL_ASSERT_OK(error);
  EXPECT_EQ(error->caused_by_rank, 2);

  auto done = ParseTrainerEvent(R"({"event":"done","result":{"perplexity":12.5}})");
  LL_ASSERT_OK(done);
  ASSERT_TRUE(done->result.has_value());
  EXPECT_EQ(done->result->fields().at("perplexity").number_value(), 12.5);

  auto step = ParseTrainerEvent(
      R"({"event":"step","step":3,"tokens_per_second":10,"mfu":null,"future":[1]})");
  LL_ASSERT_OK(step);
  EXPECT_EQ(step->tokens_per_second, 10);
  EXPECT_TRUE(std::isnan(step->peak_bytes));
}

TEST(TrainerEvent, WrongTypesAreAbsentAndNonEventsAreErrors) {
  auto odd = ParseTrainerEvent(R"({"event":"step","step":"three","tokens_per_second":{}})");
  LL_ASSERT_OK(odd);
  EXPECT_EQ(odd->step, 0);
  for (const char* line : {"", "x", "[1]", "{}", R"({"event":7})", "{\"event\":", "\xff\xfe"}) {
    EXPECT_FALSE(ParseTrainerEvent(line).ok()) << line;
  }
}

TEST(TrainerEvent, DeepNestingIsRefusedBeforeAnybodyWalksIt) {
  const std::string depth(400'000, '[');
  EXPECT_FALSE(ParseTrainerEvent("{\"event\":\"done\",\"result\":{\"x\":" + depth +
                                 std::string(depth.size(), ']') + "}}")
                   .ok());
}

TEST(TrainerEvent, WarningIsOneJsonLineWhateverItSays) {
  const std::string line =
      WarningEventLine("2026-01-01T00:00:00Z", 1, "bad \xff byte\nand a newline");
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_EQ(nlohmann::json::parse(line)["rank"], 1);
}

TEST(TrainerEvent, ExitCodesOfTheContract) {
  EXPECT_EQ(FailureClassOfExitCode(0), v1::FAILURE_CLASS_UNSPECIFIED);
  EXPECT_EQ(FailureClassOfExitCode(10), v1::FAILURE_CLASS_UNSPECIFIED);
  EXPECT_EQ(FailureClassOfExitCode(20), v1::USER);
  EXPECT_EQ(FailureClassOfExitCode(30), v1::INFRASTRUCTURE);
  EXPECT_EQ(FailureClassOfExitCode(31), v1::CAPACITY);
  EXPECT_EQ(FailureClassOfExitCode(40), v1::OUT_OF_MEMORY);
  EXPECT_EQ(FailureClassOfExitCode(50), v1::NOT_A_NUMBER);
  EXPECT_EQ(FailureClassOfExitCode(1), v1::INFRASTRUCTURE);
  EXPECT_EQ(FailureClassOfExitCode(127), v1::INFRASTRUCTURE);
}

TEST(TrainerEventTest, AWarningTellsWhatItIsAbout) {
  LL_ASSERT_OK_AND_ASSIGN(
      const TrainerEvent event,
      ParseTrainerEvent(R"({"event":"warning","message":"m","about":"checkpoint","step":7})"));
  EXPECT_EQ(event.about, "checkpoint");
  EXPECT_EQ(event.step, 7);
}

}  // namespace
}  // namespace ll
