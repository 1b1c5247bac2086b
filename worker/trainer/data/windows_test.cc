#include "worker/trainer/data/windows.h"

#include <set>

#include "base/status_matchers.h"

namespace ll {
namespace {

TEST(Windows, OfficialCountIsThatOfLongLora) {
  for (const int64_t tokens : {2600, 4096, 5000, 10240}) {
    LL_ASSERT_OK_AND_ASSIGN(const auto windows,
                            PlanWindows(tokens, 2048, 256, WindowMode::kOfficial));
    EXPECT_EQ(static_cast<int64_t>(windows.size()), (tokens - 2048 + 255) / 256 - 1) << tokens;
    EXPECT_EQ(windows[1], (Window{256, 256 + 2048, 257}));
  }
}

TEST(Windows, ExactScoresEveryTokenOnce) {
  for (const int64_t tokens : {8, 9, 23, 24, 25, 64, 65}) {
    for (const int64_t stride : {1, 3, 7, 8, 100}) {
      LL_ASSERT_OK_AND_ASSIGN(const auto windows,
                              PlanWindows(tokens, 8, stride, WindowMode::kExact));
      std::multiset<int64_t> scored;
      for (const Window& w : windows) {
        EXPECT_LE(w.end - w.begin, 8);
        EXPECT_GT(w.first_scored, w.begin);
        for (int64_t t = w.first_scored; t < w.end; ++t) scored.insert(t);
      }
      // At a stride of whole windows the first token of each follows on nothing.
      std::multiset<int64_t> wanted;
      for (int64_t t = 1; t < tokens; ++t) {
        if (stride < 8 || t % 8 != 0) wanted.insert(t);
      }
      EXPECT_EQ(scored, wanted) << tokens << " tokens, stride " << stride;
    }
  }
}

TEST(Windows, ExactKeepsTheLast) {
  LL_ASSERT_OK_AND_ASSIGN(const auto windows, PlanWindows(11, 4, 3, WindowMode::kExact));
  EXPECT_THAT(windows, testing::ElementsAre(Window{0, 4, 1}, Window{3, 7, 4}, Window{6, 10, 7},
                                            Window{9, 11, 10}));
  LL_ASSERT_OK_AND_ASSIGN(const auto one, PlanWindows(4, 4, 4, WindowMode::kExact));
  EXPECT_THAT(one, testing::ElementsAre(Window{0, 4, 1}));
}

TEST(Windows, NoWindowIsAnErrorThatSaysHowManyTokensAreNeeded) {
  EXPECT_THAT(PlanWindows(3, 4, 1, WindowMode::kExact),
              StatusIs(absl::StatusCode::kInvalidArgument, "at least 4"));
  EXPECT_THAT(PlanWindows(2300, 2048, 256, WindowMode::kOfficial),
              StatusIs(absl::StatusCode::kInvalidArgument, "at least 2305"));
}

}  // namespace
}  // namespace ll
