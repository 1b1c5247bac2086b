// A picture as lines and texts: what a layout hands to those who write files of it. Coordinates are
// in pixels from the upper left corner; colours are "#rrggbb".
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace ll {

struct DrawnLine {
  std::vector<std::pair<double, double>> points;  // two or more
  std::string color;
  double width = 1;
};

enum class TextAnchor { kStart, kMiddle, kEnd };

struct DrawnText {
  double x = 0, y = 0;  // of the baseline, at the anchor
  std::string text;     // UTF-8
  double size = 13;     // pixels
  std::string color;
  TextAnchor anchor = TextAnchor::kStart;
};

// On white; in this order, lines first.
struct Drawing {
  int width = 0, height = 0;
  std::vector<DrawnLine> lines;
  std::vector<DrawnText> texts;
};

// A file of its own: no script, no outside reference; texts are escaped.
std::string DrawingSvg(const Drawing& drawing);

}  // namespace ll
