// Curves as inline SVG. Colours come from the page's style sheet; the page's script adds a reading
// line from the attributes data-*.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "coordinator/web/html.h"

namespace ll {

struct LineChart {
  std::string title;  // "loss"
  std::string unit;   // may be empty
  std::string x_label = "step";
  std::vector<std::pair<double, double>> points;  // x rises
};

// Of each of at most `buckets` equal stretches of x the first, the lowest, the highest and the last
// point, so that no spike is lost. Points that are not finite are left out.
std::vector<std::pair<double, double>> Thin(const std::vector<std::pair<double, double>>& points,
                                            int buckets);

// Values between `low` and `high` that people read easily (1, 2 or 5 times a power of ten apart),
// about `count` of them; `low` <= `high`, finite.
std::vector<double> Ticks(double low, double high, int count);

// A figure with the chart and its newest value; without two points it says so.
void AddChart(const LineChart& chart, Html& out);

}  // namespace ll
