#include "model/report/axis.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {
using ::testing::Contains;
using ::testing::ElementsAre;

TEST(AxisTest, ThinningKeepsEveryPeak) {
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < 100'000; ++i) points.emplace_back(i, 2.0 + std::sin(i * 1e-3));
  points[31'415].second = 50;
  points[77'777].second = -50;
  points[500].second = std::numeric_limits<double>::quiet_NaN();
  const auto thin = Thin(points, 300);
  EXPECT_LE(thin.size(), 1204u);
  EXPECT_THAT(thin, Contains(std::pair(31'415.0, 50.0)));
  EXPECT_THAT(thin, Contains(std::pair(77'777.0, -50.0)));
  EXPECT_EQ(thin.front(), points.front());
  EXPECT_EQ(thin.back(), points.back());
  for (size_t i = 1; i < thin.size(); ++i) EXPECT_LT(thin[i - 1].first, thin[i].first);
}

TEST(AxisTest, FewPointsStay) {
  EXPECT_THAT(Thin({{1, 2}, {2, std::nan("")}, {3, 4}}, 300),
              ElementsAre(std::pair(1.0, 2.0), std::pair(3.0, 4.0)));
}

TEST(AxisTest, TicksAreRound) {
  EXPECT_THAT(Ticks(0, 10, 5), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(Ticks(0.9, 3.1, 4), ElementsAre(1, 2, 3));
  EXPECT_THAT(Ticks(5, 5, 4), ElementsAre(5));
  EXPECT_FALSE(std::signbit(Ticks(-0.4, 2, 2)[0])) << "-0 is not what people read";
}

// A curve that differs in the last bits, or lies far out: where numbers are no closer than the
// ticks would be, counting them never ends.
TEST(AxisTest, ThereAreAFewTicksWhateverTheEnds) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const auto& [low, high] :
       {std::pair(1.0, std::nextafter(1.0, 2.0)), std::pair(9.0e18, std::nextafter(9.0e18, 1e19)),
        std::pair(-1e308, 1e308), std::pair(0.0, 5e-324), std::pair(1e300, 1e300 * (1 + 1e-15)),
        std::pair(-infinity, infinity), std::pair(std::nan(""), 1.0)})
    EXPECT_LE(Ticks(low, high, 6).size(), 20u) << low << " to " << high;
}

TEST(AxisTest, NumbersAreShort) {
  EXPECT_EQ(AxisNumber(2.34567), "2.346");
  EXPECT_EQ(AxisNumber(12345), "12,345");
  EXPECT_EQ(AxisNumber(2e-5), "2e-05");
  // Of an axis that is not wide, each its own and where it says.
  EXPECT_THAT(AxisNumbers(Ticks(0.15048, 0.15063, 4)), ElementsAre("0.1505", "0.15055", "0.1506"));
  EXPECT_THAT(AxisNumbers({9000, 9500, 10000}), ElementsAre("9000", "9500", "10,000"));
  EXPECT_THAT(AxisNumbers({2.34567}), ElementsAre("2.346"));
}

}  // namespace
}  // namespace ll
