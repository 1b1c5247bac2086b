#include "model/report/curve_figure.h"

#include <algorithm>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {
using ::testing::Contains;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::Not;

CurveFigure OnePanel(std::vector<Curve> curves) {
  return {"training", "step", {{"Throughput", "tokens/s", std::move(curves)}}};
}

std::vector<DrawnLine> LinesOf(const Drawing& drawing, const std::string& color) {
  std::vector<DrawnLine> lines;
  for (const DrawnLine& line : drawing.lines)
    if (line.color == color) lines.push_back(line);
  return lines;
}

TEST(CurveFigureTest, DrawsAxesUnitsAndTheCurve) {
  const Drawing drawing = LayOut(OnePanel({{"a", {{1, 10}, {2, 20}, {3, 30}}}}));
  for (const char* text : {"training", "Throughput [tokens/s]", "step", "10", "30", "1", "3"})
    EXPECT_THAT(drawing.texts, Contains(Field(&DrawnText::text, text))) << text;
  const auto curve = LinesOf(drawing, "#0072b2");
  ASSERT_EQ(curve.size(), 1u);
  ASSERT_EQ(curve[0].points.size(), 3u);
  EXPECT_LT(curve[0].points[0].first, curve[0].points[2].first);
  EXPECT_GT(curve[0].points[0].second, curve[0].points[2].second) << "y rises";
  for (const DrawnLine& line : drawing.lines) {
    for (const auto& [x, y] : line.points) {
      EXPECT_TRUE(x >= 0 && x <= drawing.width && y >= 0 && y <= drawing.height) << x << "," << y;
    }
  }
}

TEST(CurveFigureTest, ANanIsAGapAndAPeakStays) {
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < 50'000; ++i) points.emplace_back(i, i == 31'415 ? 100 : 1);
  points[100].second = std::nan("");
  const Drawing drawing = LayOut(OnePanel({{"a", points}}));
  const auto curve = LinesOf(drawing, "#0072b2");
  ASSERT_EQ(curve.size(), 2u);
  EXPECT_LT(curve[0].points.size() + curve[1].points.size(), 2500u);
  double lowest = drawing.height;
  for (const auto& point : curve[1].points) lowest = std::min(lowest, point.second);
  EXPECT_LT(lowest, 110) << "the peak is near the frame's upper end";
}

TEST(CurveFigureTest, SeveralCurvesHaveColoursAndALegend) {
  const Drawing drawing =
      LayOut(OnePanel({{"first", {{1, 1}, {2, 2}}}, {"second", {{1, 2}, {2, 1}}}}));
  EXPECT_THAT(drawing.texts, Contains(Field(&DrawnText::text, "first")));
  EXPECT_EQ(LinesOf(drawing, "#0072b2").size(), 2u) << "curve and legend";
  EXPECT_EQ(LinesOf(drawing, "#d55e00").size(), 2u);
  const Drawing alone = LayOut(OnePanel({{"first", {{1, 1}, {2, 2}}}}));
  EXPECT_THAT(alone.texts, Not(Contains(Field(&DrawnText::text, "first"))));
}

TEST(CurveFigureTest, WithoutValuesItSaysSo) {
  EXPECT_THAT(LayOut(OnePanel({{"a", {{1, std::nan("")}}}})).texts,
              Contains(Field(&DrawnText::text, "no values")));
  EXPECT_THAT(LayOut(OnePanel({{"a", {{1, 5}}}})).texts,
              Not(Contains(Field(&DrawnText::text, "no values"))));
}

TEST(CurveFigureTest, SvgIsEscaped) {
  CurveFigure figure = OnePanel({{"a", {{1, 1}, {2, 2}}}});
  figure.title = "<script>\"&\x01";
  const std::string svg = DrawingSvg(LayOut(figure));
  EXPECT_THAT(svg, HasSubstr("&lt;script&gt;&quot;&amp;</text>"));
  EXPECT_THAT(svg, Not(HasSubstr("<script")));
  EXPECT_THAT(svg, HasSubstr("stroke=\"#0072b2\""));
}

}  // namespace
}  // namespace ll
