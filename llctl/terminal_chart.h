// A curve in characters. Pure, thread-safe.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace ll {

// `rows` lines of a chart with its vertical axis and one line with the ends of the horizontal one,
// all at most `columns` wide: a dot a point of braille (2 x 4 in a character), without UTF-8 one
// '*' a character. x rises; points that are not finite are left out. Empty with fewer than two
// points, or where the chart has no room (fewer than 20 columns or 2 rows).
std::vector<std::string> TerminalChart(const std::vector<std::pair<double, double>>& points,
                                       int columns, int rows, bool utf8);

}  // namespace ll
