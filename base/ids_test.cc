#include "base/ids.h"

#include <set>

#include "gtest/gtest.h"

namespace ll {
namespace {

TEST(IdsTest, SeededRandomIsReproducibleAndBelowStaysBelow) {
  SeededRandom a(7), b(7);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.Next(), b.Next());
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(a.Below(10));
  EXPECT_EQ(seen.size(), 10u);
  EXPECT_EQ(*seen.rbegin(), 9u);
}

TEST(IdsTest, JobIdsAreDistinctAndPrefixed) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(NewJobId(SystemRandom()).value());
  EXPECT_EQ(ids.size(), 1000u);
  EXPECT_EQ(ids.begin()->size(), 16u);
  EXPECT_EQ(ids.begin()->substr(0, 4), "job-");
}

}  // namespace
}  // namespace ll
