#include "coordinator/web/chart.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {
using ::testing::HasSubstr;

TEST(ChartTest, DrawsAndDescribes) {
  Html out;
  AddChart({"Loss", "", "step", {{1, 4}, {2, 2}, {3, 1}}}, out);
  EXPECT_THAT(out.str(),
              HasSubstr("aria-label=\"Loss by step: from 4 to 1, lowest 1, highest 4\""));
  EXPECT_THAT(out.str(), HasSubstr("data-points=\"1,4 2,2 3,1 \""));
  EXPECT_THAT(out.str(), HasSubstr("d=\"M58.0 10.0L343.0 132.7L628.0 194.0\""));
  Html flat;
  AddChart({"Flat", "", "step", {{1, 2}, {2, 2}}}, flat);
  EXPECT_THAT(flat.str(), HasSubstr("M58.0 102.0L628.0 102.0"));
  // The number under the last point lies within the picture.
  Html wide;
  AddChart({"Wide", "", "step", {{0, 2}, {3000, 3}}}, wide);
  EXPECT_THAT(wide.str(), HasSubstr("<text x=\"622.0\" y=\"212\" text-anchor=\"middle\">3000<"));
  Html none;
  AddChart({"None", "", "step", {{1, 2}}}, none);
  EXPECT_THAT(none.str(), HasSubstr("nothing to draw yet"));
}

}  // namespace
}  // namespace ll
