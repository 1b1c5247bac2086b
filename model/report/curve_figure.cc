#include "model/report/curve_figure.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/report/axis.h"

namespace ll {
namespace {

using CurvePoint = std::pair<double, double>;

constexpr int kPanelWidth = 580, kPanelHeight = 330, kPanelsARow = 2, kMargin = 20;
constexpr int kAxisLeft = 78, kAxisRight = 12, kAxisTop = 40, kAxisBottom = 52;
constexpr int kTitleHeight = 44, kLegendHeight = 24, kLegendLine = 34;
constexpr double kCharacterWidth = 8;  // about, of a legend's text
constexpr int kStretches = 300;
constexpr char kTextColor[] = "#1a1a1a", kAxisColor[] = "#555555", kGridColor[] = "#dddddd";
// Okabe and Ito's, the palest last.
constexpr const char* kCurveColors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                        "#e69f00", "#000000", "#56b4e9", "#a6761d"};

const char* ColorOf(size_t curve) { return kCurveColors[curve % std::size(kCurveColors)]; }

// The curve's stretches between points that are not finite, thinned.
std::vector<std::vector<CurvePoint>> Stretches(const std::vector<CurvePoint>& points) {
  std::vector<std::vector<CurvePoint>> all(1);
  for (const CurvePoint& point : points) {
    if (std::isfinite(point.first) && std::isfinite(point.second)) {
      all.back().push_back(point);
    } else if (!all.back().empty()) {
      all.emplace_back();
    }
  }
  std::erase_if(all, [](const auto& stretch) { return stretch.empty(); });
  const int buckets = std::max(4, kStretches / std::max<int>(1, static_cast<int>(all.size())));
  for (auto& stretch : all) stretch = Thin(stretch, buckets);
  return all;
}

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void Take(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

class PanelLayout {
 public:
  PanelLayout(const CurvePanel& panel, const std::string& x_label, double left, double top,
              Drawing& out)
      : panel_(panel),
        x_label_(x_label),
        left_(left + kAxisLeft),
        right_(left + kPanelWidth - kAxisRight),
        top_(top + kAxisTop),
        bottom_(top + kPanelHeight - kAxisBottom),
        out_(out) {}

  void Draw() {
    Text(left_, top_ - 14,
         panel_.unit.empty() ? panel_.title : absl::StrCat(panel_.title, " [", panel_.unit, "]"),
         15, TextAnchor::kStart);
    Text((left_ + right_) / 2, bottom_ + 40, x_label_, 13, TextAnchor::kMiddle);
    Range x, y;
    for (const Curve& curve : panel_.curves) {
      stretches_.push_back(Stretches(curve.points));
      for (const auto& stretch : stretches_.back()) {
        for (const CurvePoint& point : stretch) {
          x.Take(point.first);
          y.Take(point.second);
        }
      }
    }
    if (!(x.low <= x.high)) {
      Frame();
      Text((left_ + right_) / 2, (top_ + bottom_) / 2, "no values", 13, TextAnchor::kMiddle);
      return;
    }
    const AxisScale across = ScaleOf(x.low, x.high, left_, right_);
    const double margin = (y.high - y.low) * 0.04;  // curves do not lie on the frame
    const AxisScale up = ScaleOf(y.low - margin, y.high + margin, bottom_, top_);
    Grid(across, up);
    Frame();
    for (size_t i = 0; i < stretches_.size(); ++i) Curves(i, across, up);
  }

 private:
  void Line(std::vector<CurvePoint> points, const char* color, double width) {
    out_.lines.push_back({std::move(points), color, width});
  }
  void Text(double x, double y, const std::string& text, double size, TextAnchor anchor) {
    out_.texts.push_back({x, y, text, size, kTextColor, anchor});
  }
  void Frame() { Line({{left_, top_}, {left_, bottom_}, {right_, bottom_}}, kAxisColor, 1.2); }
  void Grid(const AxisScale& across, const AxisScale& up) {
    const std::vector<double> ticks = Ticks(up.low, up.high, 5);
    const std::vector<std::string> numbers = AxisNumbers(ticks);
    for (size_t i = 0; i < ticks.size(); ++i) {
      Line({{left_, up(ticks[i])}, {right_, up(ticks[i])}}, kGridColor, 1);
      Text(left_ - 7, up(ticks[i]) + 4.5, numbers[i], 13, TextAnchor::kEnd);
    }
    for (const double tick : Ticks(across.low, across.high, 6)) {
      if (tick != std::floor(tick)) continue;  // steps are counted
      Line({{across(tick), top_}, {across(tick), bottom_}}, kGridColor, 1);
      Text(across(tick), bottom_ + 19, absl::StrFormat("%.10g", tick), 13, TextAnchor::kMiddle);
    }
  }
  void Curves(size_t index, const AxisScale& across, const AxisScale& up) {
    for (const auto& stretch : stretches_[index]) {
      std::vector<CurvePoint> points;
      for (const CurvePoint& point : stretch)
        points.emplace_back(across(point.first), up(point.second));
      // A point alone is drawn as a short dash.
      if (points.size() == 1)
        points = {{points[0].first - 2, points[0].second}, {points[0].first + 2, points[0].second}};
      Line(std::move(points), ColorOf(index), 1.8);
    }
  }

  const CurvePanel& panel_;
  const std::string& x_label_;
  const double left_, right_, top_, bottom_;
  Drawing& out_;
  std::vector<std::vector<std::vector<CurvePoint>>> stretches_;  // by curve
};

// The names of the curves, as many a line as fit; returns the height it takes.
double AddLegend(const std::vector<Curve>& curves, double top, Drawing& out) {
  if (curves.size() < 2) return 0;
  size_t longest = 0;
  for (const Curve& curve : curves) longest = std::max(longest, curve.name.size());
  const double item = kLegendLine + kCharacterWidth * static_cast<double>(longest) + kMargin;
  const auto a_line = static_cast<size_t>(std::max(1.0, (out.width - 2 * kMargin) / item));
  for (size_t i = 0; i < curves.size(); ++i) {
    const double x = kMargin + 8 + static_cast<double>(i % a_line) * item;
    const double y = top + static_cast<double>(i / a_line) * kLegendHeight;
    out.lines.push_back({{{x, y + 8}, {x + 26, y + 8}}, ColorOf(i), 3});
    out.texts.push_back(
        {x + kLegendLine, y + 12.5, curves[i].name, 13, kTextColor, TextAnchor::kStart});
  }
  return static_cast<double>((curves.size() + a_line - 1) / a_line) * kLegendHeight;
}

}  // namespace

Drawing LayOut(const CurveFigure& figure) {
  Drawing out;
  out.width = kPanelsARow * kPanelWidth + 2 * kMargin;
  out.texts.push_back({kMargin + 8.0, 32, figure.title, 18, kTextColor, TextAnchor::kStart});
  double top = kTitleHeight;
  if (!figure.panels.empty()) top += AddLegend(figure.panels[0].curves, top, out);
  for (size_t i = 0; i < figure.panels.size(); ++i) {
    const double left = kMargin + static_cast<double>(i % kPanelsARow) * kPanelWidth;
    const double above = top + static_cast<double>(i / kPanelsARow) * kPanelHeight;
    PanelLayout(figure.panels[i], figure.x_label, left, above, out).Draw();
  }
  const size_t rows = (figure.panels.size() + kPanelsARow - 1) / kPanelsARow;
  out.height = static_cast<int>(top) + static_cast<int>(rows) * kPanelHeight + kMargin;
  return out;
}

}  // namespace ll
