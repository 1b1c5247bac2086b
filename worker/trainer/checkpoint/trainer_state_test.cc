#include "worker/trainer/checkpoint/trainer_state.h"

#include <cmath>

#include "base/status_matchers.h"

namespace ll {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TrainerState Sample() {
  TrainerState state;
  state.step = 7;
  state.rows_consumed = 28;
  state.tokens_consumed = 1792;
  state.last_loss = 2.5;
  state.spec = Resolve(*ParseJobSpec("model: m\nctx: 64\n")).value();
  state.data_fingerprint = "abc";
  state.base_fingerprint = "def";
  state.plan = {{"data_parallel", 1}};
  state.build = {{"version", "0.1.0"}};
  return state;
}

// The sample's text with one member replaced; a null takes it away.
std::string With(const std::string& member, const nlohmann::json& value) {
  auto json = nlohmann::json::parse(TrainerStateToText(Sample()));
  json[nlohmann::json::json_pointer("/" + member)] = value;
  if (value.is_null()) json.erase(member);
  return json.dump();
}

TEST(TrainerStateTest, RoundTrip) {
  LL_ASSERT_OK_AND_ASSIGN(const TrainerState state,
                          ParseTrainerState(TrainerStateToText(Sample())));
  EXPECT_EQ(state.step, 7);
  EXPECT_EQ(state.rows_consumed, 28);
  EXPECT_EQ(state.tokens_consumed, 1792);
  EXPECT_EQ(state.last_loss, 2.5);
  EXPECT_EQ(state.spec, Sample().spec);
  EXPECT_EQ(state.base_fingerprint, "def");
  EXPECT_EQ(state.plan, Sample().plan);
}

TEST(TrainerStateTest, EarlyStoppingGoesOnWhereItStood) {
  LL_ASSERT_OK_AND_ASSIGN(TrainerState state, ParseTrainerState(TrainerStateToText(Sample())));
  EXPECT_FALSE(std::isfinite(state.best_perplexity));
  EXPECT_EQ(state.evaluations_without_gain, 0);
  state.best_perplexity = 1.0 / 3;
  state.evaluations_without_gain = 2;
  LL_ASSERT_OK_AND_ASSIGN(state, ParseTrainerState(TrainerStateToText(state)));
  EXPECT_EQ(state.best_perplexity, 1.0 / 3);  // bit for bit
  EXPECT_EQ(state.evaluations_without_gain, 2);
  EXPECT_THAT(ParseTrainerState(With("early_stopping", {{"best_perplexity", "low"}})),
              StatusIs(kInvalid, "best_perplexity: expected a number"));
  EXPECT_THAT(ParseTrainerState(With("early_stopping", {{"best_perplexity", 2.0}})),
              StatusIs(kInvalid, "evaluations_without_gain: expected"));
}

TEST(TrainerStateTest, GuardsGoOnWhereTheyStood) {
  TrainerState state = Sample();
  state.rows_skipped = 12;
  state.guard = {{1.0 / 3, 1e-300, 2}, 3, 4, 1};
  LL_ASSERT_OK_AND_ASSIGN(const TrainerState read, ParseTrainerState(TrainerStateToText(state)));
  EXPECT_EQ(read.guard, state.guard);  // bit for bit
  EXPECT_EQ(read.rows_skipped, 12);
  LL_ASSERT_OK_AND_ASSIGN(const TrainerState older, ParseTrainerState(With("guard", nullptr)));
  EXPECT_EQ(older.guard, GuardState());
  EXPECT_THAT(ParseTrainerState(With("guard/losses", std::vector<double>(65, 1.0))),
              StatusIs(kInvalid, "guard losses: expected at most 64"));
  EXPECT_THAT(ParseTrainerState(With("guard/losses", {"x"})), StatusIs(kInvalid, "guard losses"));
  EXPECT_THAT(ParseTrainerState(With("guard/rollbacks", -1)), StatusIs(kInvalid, "rollbacks"));
}

TEST(TrainerStateTest, ErrorsNameTheMember) {
  EXPECT_THAT(ParseTrainerState("{"),
              StatusIs(kInvalid, "trainer_state.json: expected a JSON object"));
  EXPECT_THAT(ParseTrainerState(With("step", -1)),
              StatusIs(kInvalid, "trainer_state.json step: expected a count from 0"));
  EXPECT_THAT(ParseTrainerState(With("step", 1e300)), StatusIs(kInvalid, "step: expected a count"));
  EXPECT_THAT(ParseTrainerState(With("step", UINT64_MAX)), StatusIs(kInvalid, "step: expected"));
  EXPECT_THAT(ParseTrainerState(With("data_position", 3)), StatusIs(kInvalid, "rows_consumed"));
  EXPECT_THAT(ParseTrainerState(With("plan", nullptr)), StatusIs(kInvalid, "plan: expected"));
  EXPECT_THAT(ParseTrainerState(With("data_fingerprint", 1)),
              StatusIs(kInvalid, "data_fingerprint: expected text, found 1"));
}

TEST(TrainerStateTest, ASpecThatDoesNotHoldIsRefused) {  // a resume would take it over
  EXPECT_THAT(ParseTrainerState(With("spec/global_batch_size", -4)),
              StatusIs(kInvalid, "global_batch_size: expected a positive integer"));
  EXPECT_THAT(ParseTrainerState(With("spec/no_such_key", 1)), StatusIs(kInvalid, "unknown key"));
  auto json = nlohmann::json::parse(TrainerStateToText(Sample()));
  json["spec"].erase("global_batch_size");
  EXPECT_THAT(ParseTrainerState(json.dump()), StatusIs(kInvalid, "with global_batch_size"));
}

}  // namespace
}  // namespace ll
