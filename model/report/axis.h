// What every picture of a curve needs: points that fit it, and numbers for its axes. Pure
// functions.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace ll {

// Of each of at most `buckets` equal stretches of x the first, the lowest, the highest and the last
// point, so that no spike is lost. Points that are not finite are left out.
std::vector<std::pair<double, double>> Thin(const std::vector<std::pair<double, double>>& points,
                                            int buckets);

// Values between `low` and `high` that people read easily (1, 2 or 5 times a power of ten apart),
// about `count` of them; `low` <= `high`, finite.
std::vector<double> Ticks(double low, double high, int count);

// Where values lie on a picture: `low` at `from`, `high` at `to`.
struct AxisScale {
  double low, high, from, to;
  double operator()(double value) const {
    return from + (value - low) / (high - low) * (to - from);
  }
};
// A curve that does not vary gets a margin, so that it lies in the middle. Finite values.
AxisScale ScaleOf(double low, double high, double from, double to);

// "2.341", "12,345", "2e-05": four digits, whole from ten thousand on.
std::string AxisNumber(double value);
// The same of one axis' ticks, with more digits where four would not tell them apart.
std::vector<std::string> AxisNumbers(const std::vector<double>& ticks);

}  // namespace ll
