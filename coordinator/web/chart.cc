#include "coordinator/web/chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/format.h"

namespace ll {
namespace {

using Point = std::pair<double, double>;

constexpr int kWidth = 640, kHeight = 220, kLeft = 58, kRight = 12, kTop = 10, kBottom = 26;
constexpr int kBuckets = 300;

bool Finite(const Point& point) {
  return std::isfinite(point.first) && std::isfinite(point.second);
}

std::string Short(double value) {
  if (std::fabs(value) < 1e4 || std::fabs(value) > 1e15) return absl::StrFormat("%.4g", value);
  return HumanCount(std::llround(value));
}

// Where values lie on the picture.
struct Scale {
  double low, high, from, to;
  double operator()(double value) const {
    return from + (value - low) / (high - low) * (to - from);
  }
};

Scale ScaleOf(double low, double high, double from, double to) {
  if (high - low < 1e-12 * std::max(1.0, std::fabs(high))) {
    const double margin = std::max(std::fabs(high) * 0.05, 1e-6);
    low -= margin;
    high += margin;
  }
  return {low, high, from, to};
}

void AddAxes(const Scale& x, const Scale& y, Html& out) {
  for (const double tick : Ticks(y.low, y.high, 4)) {
    const std::string at = absl::StrFormat("%.1f", y(tick));
    out.Raw("<line class=\"grid\" x1=\"").Number(kLeft).Raw("\" x2=\"").Number(kWidth - kRight);
    out.Raw("\" y1=\"").Text(at).Raw("\" y2=\"").Text(at).Raw("\"/><text x=\"").Number(kLeft - 6);
    out.Raw("\" y=\"").Text(absl::StrFormat("%.1f", y(tick) + 4));
    out.Raw("\" text-anchor=\"end\">").Text(Short(tick)).Raw("</text>");
  }
  for (const double tick : Ticks(x.low, x.high, 6)) {
    if (tick != std::floor(tick)) continue;  // steps and runs are counted
    out.Raw("<text x=\"").Text(absl::StrFormat("%.1f", x(tick)));
    out.Raw("\" y=\"")
        .Number(kHeight - 8)
        .Raw("\" text-anchor=\"middle\">")
        .Text(absl::StrFormat("%.10g", tick))
        .Raw("</text>");
  }
}

std::string PathOf(const std::vector<Point>& points, const Scale& x, const Scale& y) {
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

std::vector<Point> Thin(const std::vector<Point>& points, int buckets) {
  std::vector<Point> all;
  std::copy_if(points.begin(), points.end(), std::back_inserter(all), Finite);
  if (all.size() <= static_cast<size_t>(buckets) * 4) return all;
  const double begin = all.front().first, width = (all.back().first - begin) / buckets;
  std::vector<Point> out;
  for (size_t i = 0; i < all.size();) {
    const double end = begin + width * (std::floor((all[i].first - begin) / width) + 1);
    size_t last = i, low = i, high = i;
    for (size_t j = i; j < all.size() && (j == i || all[j].first < end); ++j) {
      last = j;
      if (all[j].second < all[low].second) low = j;
      if (all[j].second > all[high].second) high = j;
    }
    std::vector<size_t> kept = {i, low, high, last};
    std::sort(kept.begin(), kept.end());
    kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
    for (const size_t k : kept) out.push_back(all[k]);
    i = last + 1;
  }
  return out;
}

std::vector<double> Ticks(double low, double high, int count) {
  const double raw = (high - low) / std::max(1, count);
  if (!(raw > 0)) return {low};
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double digit = raw / power;
  const double step = power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
  std::vector<double> ticks;
  for (double i = std::ceil(low / step); i * step <= high + step * 1e-9; ++i)
    ticks.push_back(i * step);
  return ticks;
}

void AddChart(const LineChart& chart, Html& out) {
  const std::vector<Point> points = Thin(chart.points, kBuckets);
  out.Raw("<figure class=\"chart\"><figcaption>").Text(chart.title);
  if (!chart.unit.empty()) out.Raw(" <small>").Text(chart.unit).Raw("</small>");
  if (points.size() < 2) {
    out.Raw("</figcaption><p class=\"none\">nothing to draw yet</p></figure>");
    return;
  }
  out.Raw(" <output>").Text(Short(points.back().second)).Raw("</output></figcaption>");
  const auto [low, high] =
      std::minmax_element(points.begin(), points.end(),
                          [](const Point& a, const Point& b) { return a.second < b.second; });
  const Scale x = ScaleOf(points.front().first, points.back().first, kLeft, kWidth - kRight);
  const Scale y = ScaleOf(low->second, high->second, kHeight - kBottom, kTop);
  out.Raw("<svg viewBox=\"0 0 ")
      .Number(kWidth)
      .Raw(" ")
      .Number(kHeight)
      .Raw("\" role=\"img\" aria-label=\"");
  out.Text(absl::StrCat(chart.title, " by ", chart.x_label, ": from ", Short(points.front().second),
                        " to ", Short(points.back().second), ", lowest ", Short(low->second),
                        ", highest ", Short(high->second)));
  out.Raw("\" data-x-label=\"")
      .Text(chart.x_label)
      .Raw("\" data-points=\"")
      .Text(DataOf(points))
      .Raw("\">");
  AddAxes(x, y, out);
  out.Raw("<path class=\"curve\" d=\"").Text(PathOf(points, x, y)).Raw("\"/></svg></figure>");
}

}  // namespace ll
