#include "llctl/sweep.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/status_matchers.h"
#include "gmock/gmock.h"

namespace ll {
namespace {
using ::testing::ElementsAre;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<std::vector<JobSpec>> Sweep(const std::vector<std::string>& sweeps) {
  JobSpec base;
  base.model = "7b";
  base.labels["team"] = "nlp";
  return ExpandSweep(base, sweeps, "array-x");
}

TEST(SweepTest, TheCrossProductInOrder) {
  LL_ASSERT_OK_AND_ASSIGN(const auto specs, Sweep({"learning_rate=1e-5,2e-5", "ctx=64,128,256"}));
  ASSERT_EQ(specs.size(), 6u);
  std::vector<std::string> seen;
  for (const JobSpec& spec : specs) {
    seen.push_back(absl::StrCat(*spec.name, " ", *spec.learning_rate, " ", *spec.context_length));
    EXPECT_EQ(spec.model, "7b");
    EXPECT_EQ(spec.labels.at("team"), "nlp");
    EXPECT_EQ(spec.labels.at("array"), "array-x");
  }
  EXPECT_THAT(seen,
              ElementsAre("array-x-0 1e-05 64", "array-x-1 1e-05 128", "array-x-2 1e-05 256",
                          "array-x-3 2e-05 64", "array-x-4 2e-05 128", "array-x-5 2e-05 256"));
  EXPECT_EQ(specs[1].labels.at("learning_rate"), "1e-5");
  EXPECT_EQ(specs[1].labels.at("context_length"), "128");
}

TEST(SweepTest, ListsAreSeparatedBySemicolons) {
  LL_ASSERT_OK_AND_ASSIGN(const auto specs, Sweep({"target_modules=q_proj,v_proj;q_proj"}));
  ASSERT_EQ(specs.size(), 2u);
  EXPECT_THAT(specs[0].target_modules, ElementsAre("q_proj", "v_proj"));
  EXPECT_THAT(specs[1].target_modules, ElementsAre("q_proj"));
}

TEST(SweepTest, BadSweepsNameWhatIsWrong) {
  EXPECT_THAT(Sweep({"seed"}),
              StatusIs(kInvalid, "sweep: expected KEY=VALUE,VALUE,..., found seed"));
  EXPECT_THAT(Sweep({"seed=1,,2"}), StatusIs(kInvalid, "sweep: expected values"));
  EXPECT_THAT(Sweep({"sed=1"}), StatusIs(kInvalid, "sweep: expected a key of the spec"));
  EXPECT_THAT(Sweep({"name=a,b"}),
              StatusIs(kInvalid, "sweep: expected a key of the spec, but name"));
  EXPECT_THAT(Sweep({"seed=1,2", "seed=3"}), StatusIs(kInvalid, "sweep: expected each key once"));
  EXPECT_THAT(Sweep({"lora_rank=8,high"}), StatusIs(kInvalid, "lora_rank: expected"));
  const auto range = Sweep({"group_ratio=0.25,0.9"});
  EXPECT_THAT(range, StatusIs(kInvalid, "array-x-1: group_ratio: expected"));
  EXPECT_EQ(ErrorField(range.status()), "group_ratio");
  std::vector<int> seeds(40);
  for (int i = 0; i < 40; ++i) seeds[i] = i;
  const std::string many = absl::StrCat("=", absl::StrJoin(seeds, ","));
  EXPECT_THAT(Sweep({"seed" + many, "save_steps" + many}),
              StatusIs(kInvalid, "sweep: expected at most 1000 combinations, found 1600"));
}

}  // namespace
}  // namespace ll
