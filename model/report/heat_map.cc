#include "model/report/heat_map.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"

namespace ll {
namespace {

constexpr int kCellWidth = 54, kCellHeight = 26, kLeft = 92, kTop = 46, kBottom = 48, kRight = 16;

std::string Escape(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

std::string Text(double x, double y, const char* anchor, const std::string& text,
                 const char* more = "") {
  return absl::StrFormat("<text x=\"%g\" y=\"%g\" text-anchor=\"%s\"%s>%s</text>\n", x, y, anchor,
                         more, Escape(text));
}

std::string Color(double value) {
  struct Rgb {
    double r, g, b;
  };
  constexpr Rgb kLow{215, 48, 39}, kMiddle{254, 224, 139}, kHigh{26, 152, 80};
  const double v = std::clamp(value, 0.0, 1.0);
  const Rgb& from = v < 0.5 ? kLow : kMiddle;
  const Rgb& to = v < 0.5 ? kMiddle : kHigh;
  const double t = v < 0.5 ? 2 * v : 2 * v - 1;
  const auto mix = [t](double a, double b) {
    return static_cast<int>(std::lround(a + t * (b - a)));
  };
  return absl::StrFormat("#%02x%02x%02x", mix(from.r, to.r), mix(from.g, to.g), mix(from.b, to.b));
}

}  // namespace

std::string HeatMapSvg(const HeatMap& map) {
  const int width = kLeft + kCellWidth * static_cast<int>(map.columns.size()) + kRight;
  const int height = kTop + kCellHeight * static_cast<int>(map.rows.size()) + kBottom;
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" "
      "fill=\"#ffffff\"/>\n",
      width, height, width, height);
  svg += Text(width / 2.0, 20, "middle", map.title, " font-size=\"14\"");
  LL_CHECK(map.values.size() == map.rows.size());
  for (size_t r = 0; r < map.rows.size(); ++r) {
    LL_CHECK(map.values[r].size() == map.columns.size());
    const int y = kTop + kCellHeight * static_cast<int>(r);
    svg += Text(kLeft - 6, y + kCellHeight / 2.0 + 4, "end", map.rows[r]);
    for (size_t c = 0; c < map.columns.size(); ++c) {
      const int x = kLeft + kCellWidth * static_cast<int>(c);
      const std::optional<double> value = map.values[r][c];
      absl::StrAppendFormat(
          &svg,
          "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\" stroke=\"#ffffff\"/>\n",
          x, y, kCellWidth, kCellHeight, value ? Color(*value) : "#eeeeee");
      if (value) {
        svg += Text(x + kCellWidth / 2.0, y + kCellHeight / 2.0 + 4, "middle",
                    absl::StrFormat("%.2f", *value));
      }
    }
  }
  const double below = height - kBottom;
  for (size_t c = 0; c < map.columns.size(); ++c) {
    svg += Text(kLeft + kCellWidth * (static_cast<double>(c) + 0.5), below + 16, "middle",
                map.columns[c]);
  }
  svg += Text(kLeft + kCellWidth * static_cast<double>(map.columns.size()) / 2, below + 36,
              "middle", map.x_label);
  svg += absl::StrFormat(
      "<text transform=\"translate(16 %g) rotate(-90)\" text-anchor=\"middle\">%s"
      "</text>\n</svg>\n",
      (kTop + below) / 2, Escape(map.y_label));
  return svg;
}

}  // namespace ll
