// A heat map as an SVG file of its own: no script, no font, no outside reference.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace ll {

struct HeatMap {
  std::string title, x_label, y_label;
  std::vector<std::string> columns, rows;
  // [row][column], 0 … 1; nullopt is drawn empty. As many rows and columns as there are names.
  std::vector<std::vector<std::optional<double>>> values;
};

// From red (0) over yellow to green (1), the value written into each cell.
std::string HeatMapSvg(const HeatMap& map);

}  // namespace ll
