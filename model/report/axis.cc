#include "model/report/axis.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "base/format.h"

namespace ll {
namespace {

using Point = std::pair<double, double>;

bool Finite(const Point& point) {
  return std::isfinite(point.first) && std::isfinite(point.second);
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
  if (!(raw > 0) || !std::isfinite(raw)) return {low};
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double digit = raw / power;
  const double step = power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
  const double first = std::ceil(low / step);
  if (!(first + 1 > first)) return {low};  // numbers are no closer here
  std::vector<double> ticks;
  for (int i = 0; i <= count + 1 && (first + i) * step <= high + step * 1e-9; ++i)
    ticks.push_back((first + i) * step + 0.0);  // no -0
  return ticks;
}

std::string AxisNumber(double value) {
  if (std::fabs(value) < 1e4 || std::fabs(value) > 1e15) return absl::StrFormat("%.4g", value);
  return HumanCount(std::llround(value));
}

std::vector<std::string> AxisNumbers(const std::vector<double>& ticks) {
  constexpr int kMostDigits = 12;
  const double apart = ticks.size() < 2 ? 0 : ticks[1] - ticks[0];
  int digits = 4;
  const auto is_off = [&](double tick) {
    const double read = std::strtod(absl::StrFormat("%.*g", digits, tick).c_str(), nullptr);
    return std::fabs(tick) < 1e4 && std::fabs(read - tick) > apart / 100;
  };
  while (apart > 0 && digits < kMostDigits && std::any_of(ticks.begin(), ticks.end(), is_off))
    ++digits;
  std::vector<std::string> out;
  for (const double tick : ticks) {
    const bool enough = digits == 4 || std::fabs(tick) >= 1e4;
    out.push_back(enough ? AxisNumber(tick) : absl::StrFormat("%.*g", digits, tick));
  }
  return out;
}

AxisScale ScaleOf(double low, double high, double from, double to) {
  if (high - low < 1e-12 * std::max(1.0, std::fabs(high))) {
    const double margin = std::max(std::fabs(high) * 0.05, 1e-6);
    low -= margin;
    high += margin;
  }
  return {low, high, from, to};
}

}  // namespace ll
