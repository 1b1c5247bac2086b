#include "worker/trainer/data/row_order.h"

#include <algorithm>
#include <map>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

std::vector<int64_t> Pass(RowOrder& order, int64_t pass) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < order.rows(); ++i) rows.push_back(order.At(pass * order.rows() + i));
  return rows;
}

TEST(RowOrder, EveryPassVisitsEveryRowOnce) {
  RowOrder order(101, /*seed=*/7, /*shuffle=*/true);
  std::vector<int64_t> first = Pass(order, 0), second = Pass(order, 1);
  EXPECT_NE(first, second);
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  EXPECT_EQ(first, second);
  EXPECT_EQ(first.front(), 0);
  EXPECT_EQ(first.back(), 100);
}

TEST(RowOrder, EveryOrderOccurs) {
  RowOrder order(3, 7, true);
  std::map<std::vector<int64_t>, int> times;
  for (int64_t pass = 0; pass < 600; ++pass) ++times[Pass(order, pass)];
  EXPECT_EQ(times.size(), 6u);
  for (const auto& [rows, count] : times) EXPECT_GT(count, 60) << testing::PrintToString(rows);
}

TEST(RowOrder, FollowsFromSeedAndIndexAlone) {
  RowOrder straight(37, 5, true), jumping(37, 5, true), other_seed(37, 6, true);
  const std::vector<int64_t> pass2 = Pass(straight, 2);
  EXPECT_EQ(jumping.At(2 * 37 + 11), pass2[11]);
  EXPECT_NE(Pass(other_seed, 2), pass2);
  EXPECT_NE(Pass(other_seed, 1), pass2);
}

TEST(RowOrder, WithoutShuffleFileOrder) {
  RowOrder order(3, 1, false);
  EXPECT_THAT(Pass(order, 4), testing::ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace ll
