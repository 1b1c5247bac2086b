#include "model/spec/gate.h"

#include "base/field_error.h"
#include "base/status_matchers.h"
#include "gmock/gmock.h"

namespace ll {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(GateTest, ReadsConditionsInAnySpacing) {
  LL_ASSERT_OK_AND_ASSIGN(const auto gates, ParseGates(" passkey>=0.9 , perplexity < 12.5,ppl>1"));
  EXPECT_THAT(gates,
              ElementsAre(Gate{"passkey", ">=", 0.9}, Gate{"ppl", "<", 12.5}, Gate{"ppl", ">", 1}));
  EXPECT_EQ(GateText(gates[0]), "passkey >= 0.9");
  EXPECT_EQ(GateKey(gates), "passkey>=0.9,ppl<12.5,ppl>1");
  LL_ASSERT_OK_AND_ASSIGN(const auto again, ParseGates(GateKey(gates)));
  EXPECT_EQ(again, gates);
}

TEST(GateTest, BadGatesSayWhatIsWrong) {
  const struct {
    const char* text;
    const char* message;
  } cases[] = {{"", "gate: expected conditions such as passkey>=0.9"},
               {"passkey", "gate: expected conditions such as passkey>=0.9"},
               {"passkey>=0.9,", "gate: expected conditions such as passkey>=0.9"},
               {"passkey=0.9", "gate: expected conditions such as passkey>=0.9"},
               {"loss<=2",
                "gate: expected a metric: ppl, passkey, passkey_min, effective_context, "
                "topics, found \"loss\""},
               {"ppl<=", "gate: expected a number behind ppl<=, found \"\""},
               {"ppl<=nan", "gate: expected a number behind ppl<="},
               {"ppl<=1e999", "gate: expected a number behind ppl<="},
               {"ppl=>1", "gate: expected a metric"},
               {"ppl<>1", "gate: expected a number behind ppl<, found \">1\""},
               {"passkey>=90", "gate: expected a share from 0 to 1 for passkey, found 90"}};
  for (const auto& c : cases) {
    const auto gates = ParseGates(c.text);
    EXPECT_THAT(gates, StatusIs(kInvalid, c.message)) << c.text;
    EXPECT_EQ(ErrorField(gates.status()), "gate") << c.text;
  }
}

TEST(GateTest, OnlyWhatTheTaskMeasures) {
  LL_ASSERT_OK_AND_ASSIGN(const auto gates, ParseGates("passkey>=0.9,ppl<=12"));
  EXPECT_THAT(CheckGatesOfTask(gates, "passkey"),
              StatusIs(kInvalid,
                       "gate: expected what eval_task passkey measures: passkey, "
                       "passkey_min, effective_context, found ppl"));
  LL_ASSERT_OK_AND_ASSIGN(const auto passkey, ParseGates("passkey>0.9,effective_context>=8192"));
  LL_EXPECT_OK(CheckGatesOfTask(passkey, "passkey"));
  EXPECT_FALSE(CheckGatesOfTask(passkey, "topics").ok());
}

const Json kPasskey = {
    {"accuracy", 0.73},
    {"effective_context_length", 8192},
    {"by_length", {{{"length", 8192}, {"accuracy", 1.0}}, {{"length", 16384}, {"accuracy", 0.46}}}},
    {"grid",
     {{{"length", 8192}, {"depth", 0.0}, {"accuracy", 1.0}},
      {{"length", 16384}, {"depth", 0.5}, {"accuracy", 0.25}},
      {{"length", 16384}, {"depth", 1.0}, {"accuracy", 0.67}}}}};

std::string Held(const char* gate, const Json& result) {
  const auto gates = ParseGates(gate);
  if (!gates.ok()) return std::string(gates.status().message());
  const auto outcomes = HoldGates(*gates, result);
  const absl::Status status = outcomes.ok() ? GateStatus(*outcomes) : outcomes.status();
  return status.ok() ? "holds" : std::string(status.message());
}

TEST(GateTest, EachMetricIsReadFromItsPlace) {
  EXPECT_EQ(Held("passkey >= 0.9", kPasskey),
            "gate: passkey >= 0.9 is not met: 0.73, lowest 0.46 at 16384");
  EXPECT_EQ(Held("passkey_min>=0.5", kPasskey),
            "gate: passkey_min >= 0.5 is not met: 0.25 at 16384, depth 0.5");
  EXPECT_EQ(Held("effective_context>8192", kPasskey),
            "gate: effective_context > 8192 is not met: 8192");
  EXPECT_EQ(Held("passkey>=0.73,passkey_min>=0.25,effective_context>=8192", kPasskey), "holds");
  const Json one = {{"accuracy", 0.73}, {"by_length", {{{"length", 16384}, {"accuracy", 0.73}}}}};
  EXPECT_EQ(Held("passkey>=0.9", one), "gate: passkey >= 0.9 is not met: 0.73 at 16384");
  EXPECT_EQ(Held("passkey_min>0.73", one), "gate: passkey_min > 0.73 is not met: 0.73 at 16384");
  EXPECT_EQ(Held("topics>=0.8", one), "gate: topics >= 0.8 is not met: 0.73 at 16384");
  EXPECT_EQ(Held("ppl<=12.5,ppl>3", {{"perplexity", 13.25}}),
            "gate: ppl <= 12.5 is not met: 13.25");
  EXPECT_EQ(Held("ppl<=12.5,ppl<13", {{"perplexity", 13.25}}),
            "gate: ppl <= 12.5 is not met: 13.25; ppl < 13 is not met: 13.25");
}

TEST(GateTest, LimitsThemselvesCountAsTheOperatorSays) {
  const Json at = {{"perplexity", 8.0}};
  EXPECT_EQ(Held("ppl<=8", at), "holds");
  EXPECT_EQ(Held("ppl>=8", at), "holds");
  EXPECT_THAT(Held("ppl<8", at), HasSubstr("not met"));
  EXPECT_THAT(Held("ppl>8", at), HasSubstr("not met"));
}

TEST(GateTest, AResultWithoutTheMetricIsNoPass) {
  EXPECT_THAT(Held("ppl<=8", kPasskey), HasSubstr("did not measure ppl"));
  EXPECT_THAT(Held("passkey_min>=0", {{"accuracy", 1.0}}), HasSubstr("did not measure"));
  EXPECT_THAT(Held("ppl<=8", {{"perplexity", "low"}}), HasSubstr("did not measure"));
}

TEST(GateTest, TheResultListsEveryGate) {
  LL_ASSERT_OK_AND_ASSIGN(const auto gates, ParseGates("passkey>=0.9,passkey_min>=0.1"));
  LL_ASSERT_OK_AND_ASSIGN(const auto outcomes, HoldGates(gates, kPasskey));
  EXPECT_EQ(GatesToJson(outcomes).dump(),
            R"([{"gate":"passkey >= 0.9","value":0.73,"holds":false},)"
            R"({"gate":"passkey_min >= 0.1","value":0.25,"holds":true}])");
}

}  // namespace
}  // namespace ll
