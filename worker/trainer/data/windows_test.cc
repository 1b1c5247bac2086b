#include "worker/trainer/data/windows.h"

#include "base/status_matchers.h"

namespace ll {
namespace {

TEST(Windows, OfficialCountIsThatOfLongLora) {
  for (const int64_t tokens : {2600, 4096, 5000, 10240}) {
    LL_ASSERT_OK_AND_ASSIGN(const auto starts,
                            WindowStarts(tokens, 2048, 256, WindowMode::kOfficial));
    EXPECT_EQ(static_cast<int64_t>(starts.size()), (tokens - 2048 + 255) / 256 - 1) << tokens;
    EXPECT_EQ(starts[1], 256);
  }
}

TEST(Windows, ExactKeepsTheLast) {
  LL_ASSERT_OK_AND_ASSIGN(const auto starts, WindowStarts(10, 4, 3, WindowMode::kExact));
  EXPECT_THAT(starts, testing::ElementsAre(0, 3, 6));
  LL_ASSERT_OK_AND_ASSIGN(const auto one, WindowStarts(4, 4, 4, WindowMode::kExact));
  EXPECT_THAT(one, testing::ElementsAre(0));
}

TEST(Windows, NoWindowIsAnErrorThatSaysHowManyTokensAreNeeded) {
  EXPECT_THAT(WindowStarts(3, 4, 1, WindowMode::kExact),
              StatusIs(absl::StatusCode::kInvalidArgument, "at least 4"));
  EXPECT_THAT(WindowStarts(2300, 2048, 256, WindowMode::kOfficial),
              StatusIs(absl::StatusCode::kInvalidArgument, "at least 2305"));
}

}  // namespace
}  // namespace ll
