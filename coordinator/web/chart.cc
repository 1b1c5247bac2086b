#include "coordinator/web/chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/format.h"
#include "model/report/axis.h"

namespace ll {
namespace {

using Point = std::pair<double, double>;

constexpr int kWidth = 640, kHeight = 220, kLeft = 58, kRight = 12, kTop = 10, kBottom = 26;
constexpr int kBuckets = 300;
constexpr double kDigitWidth = 9;  // of the axes' font, and a little more

void AddAxes(const AxisScale& x, const AxisScale& y, Html& out) {
  const std::vector<double> ticks = Ticks(y.low, y.high, 6);
  const std::vector<std::string> numbers = AxisNumbers(ticks);
  for (size_t i = 0; i < ticks.size(); ++i) {
    const std::string at = absl::StrFormat("%.1f", y(ticks[i]));
    out.Raw("<line class=\"grid\" x1=\"").Number(kLeft).Raw("\" x2=\"").Number(kWidth - kRight);
    out.Raw("\" y1=\"").Text(at).Raw("\" y2=\"").Text(at).Raw("\"/><text x=\"").Number(kLeft - 6);
    out.Raw("\" y=\"").Text(absl::StrFormat("%.1f", y(ticks[i]) + 4));
    out.Raw("\" text-anchor=\"end\">").Text(numbers[i]).Raw("</text>");
  }
  for (const double tick : Ticks(x.low, x.high, 6)) {
    if (tick != std::floor(tick)) continue;  // steps and runs are counted
    const std::string number = absl::StrFormat("%.10g", tick);
    // The last one would be cut off by the picture's edge.
    const double most = kWidth - kDigitWidth / 2 * static_cast<double>(number.size());
    out.Raw("<text x=\"").Text(absl::StrFormat("%.1f", std::min(x(tick), most)));
    out.Raw("\" y=\"")
        .Number(kHeight - 8)
        .Raw("\" text-anchor=\"middle\">")
        .Text(number)
        .Raw("</text>");
  }
}

std::string PathOf(const std::vector<Point>& points, const AxisScale& x, const AxisScale& y) {
  std::string path;
  for (const Point& point : points) {
    absl::StrAppendFormat(&path, "%s%.1f %.1f", path.empty() ? "M" : "L", x(point.first),
                          y(point.second));
  }
  return path;
}

std::string DataOf(const std::vector<Point>& points) {
  std::string data;
  for (const Point& point : points)
    absl::StrAppendFormat(&data, "%.10g,%.6g ", point.first, point.second);
  return data;
}

}  // namespace

void AddChart(const LineChart& chart, Html& out) {
  const std::vector<Point> points = Thin(chart.points, kBuckets);
  out.Raw("<figure class=\"chart\"><figcaption>").Text(chart.title);
  if (!chart.unit.empty()) out.Raw(" <small>").Text(chart.unit).Raw("</small>");
  if (points.size() < 2) {
    out.Raw("</figcaption><p class=\"none\">nothing to draw yet</p></figure>");
    return;
  }
  out.Raw(" <output>").Text(AxisNumber(points.back().second)).Raw("</output></figcaption>");
  const auto [low, high] =
      std::minmax_element(points.begin(), points.end(),
                          [](const Point& a, const Point& b) { return a.second < b.second; });
  const AxisScale x = ScaleOf(points.front().first, points.back().first, kLeft, kWidth - kRight);
  const AxisScale y = ScaleOf(low->second, high->second, kHeight - kBottom, kTop);
  out.Raw("<svg viewBox=\"0 0 ")
      .Number(kWidth)
      .Raw(" ")
      .Number(kHeight)
      .Raw("\" role=\"img\" aria-label=\"");
  out.Text(absl::StrCat(chart.title, " by ", chart.x_label, ": from ",
                        AxisNumber(points.front().second), " to ", AxisNumber(points.back().second),
                        ", lowest ", AxisNumber(low->second), ", highest ",
                        AxisNumber(high->second)));
  out.Raw("\" data-x-label=\"")
      .Text(chart.x_label)
      .Raw("\" data-points=\"")
      .Text(DataOf(points))
      .Raw("\">");
  AddAxes(x, y, out);
  out.Raw("<path class=\"curve\" d=\"").Text(PathOf(points, x, y)).Raw("\"/></svg></figure>");
}

}  // namespace ll
