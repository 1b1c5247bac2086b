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

// A figure with the chart and its newest value; without two points it says so.
void AddChart(const LineChart& chart, Html& out);

}  // namespace ll
