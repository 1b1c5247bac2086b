#include "worker/trainer/optim/schedule.h"

#include "base/status_matchers.h"

namespace ll {
namespace {

TEST(Schedule, WarmupStartsAtZeroAndIsLinear) {
  LL_ASSERT_OK_AND_ASSIGN(const Schedule s,
                          Schedule::Create("constant_with_warmup", 2e-5, 20, 1000));
  EXPECT_EQ(s.At(0), 0.0);
  EXPECT_DOUBLE_EQ(s.At(1), 1e-6);
  EXPECT_DOUBLE_EQ(s.At(19), 1.9e-5);
  EXPECT_DOUBLE_EQ(s.At(20), 2e-5);
  EXPECT_DOUBLE_EQ(s.At(999), 2e-5);
}

// Values of transformers.get_linear_schedule_with_warmup and get_cosine_schedule_with_warmup(warmup
// 10, total 110).
TEST(Schedule, LinearAndCosineDecayToZeroAtMaxSteps) {
  LL_ASSERT_OK_AND_ASSIGN(const Schedule linear, Schedule::Create("linear", 1.0, 10, 110));
  EXPECT_DOUBLE_EQ(linear.At(5), 0.5);
  EXPECT_DOUBLE_EQ(linear.At(10), 1.0);
  EXPECT_DOUBLE_EQ(linear.At(60), 0.5);
  EXPECT_DOUBLE_EQ(linear.At(110), 0.0);
  LL_ASSERT_OK_AND_ASSIGN(const Schedule cosine, Schedule::Create("cosine", 1.0, 10, 110));
  EXPECT_DOUBLE_EQ(cosine.At(10), 1.0);
  EXPECT_NEAR(cosine.At(35), 0.8535533905932737, 1e-15);
  EXPECT_NEAR(cosine.At(60), 0.5, 1e-15);
  EXPECT_NEAR(cosine.At(110), 0.0, 1e-15);
}

TEST(Schedule, NoWarmupTrainsFromTheFirstStep) {
  LL_ASSERT_OK_AND_ASSIGN(const Schedule s, Schedule::Create("constant_with_warmup", 3.0, 0, 10));
  EXPECT_EQ(s.At(0), 3.0);
}

TEST(Schedule, UnknownNameIsRefused) {
  EXPECT_THAT(Schedule::Create("polynomial", 1, 0, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, "polynomial"));
}

}  // namespace
}  // namespace ll
