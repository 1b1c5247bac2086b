#include "llctl/terminal_chart.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/report/axis.h"

namespace ll {
namespace {

constexpr int kAxisColumns = 9;  // of the numbers left of the axis

// Dots that are set, and how a character shows those in it.
class DotGrid {
 public:
  DotGrid(int columns, int rows, bool utf8)
      : utf8_(utf8),
        across_(columns * (utf8 ? 2 : 1)),
        down_(rows * (utf8 ? 4 : 1)),
        dots_(static_cast<size_t>(across_) * down_) {}
  int across() const { return across_; }
  int down() const { return down_; }
  void Set(int x, int y) { dots_[static_cast<size_t>(y) * across_ + x] = true; }

  std::string Row(int row) const {
    std::string out;
    if (!utf8_) {
      for (int x = 0; x < across_; ++x) out.push_back(At(x, row) ? '*' : ' ');
      return out;
    }
    for (int x = 0; x < across_; x += 2) {
      // Unicode numbers the dots of a braille character down the left column, then down the right,
      // and the fourth row last.
      constexpr uint8_t kBits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
      unsigned bits = 0;
      for (int dy = 0; dy < 4; ++dy) {
        for (int dx = 0; dx < 2; ++dx)
          if (At(x + dx, row * 4 + dy)) bits |= kBits[dy][dx];
      }
      if (bits == 0) {
        out.push_back(' ');
        continue;
      }
      const unsigned code = 0x2800 + bits;  // three bytes of UTF-8
      out.push_back(static_cast<char>(0xE0 | (code >> 12)));
      out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
      out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
    }
    return out;
  }

 private:
  bool At(int x, int y) const { return dots_[static_cast<size_t>(y) * across_ + x]; }
  bool utf8_;
  int across_, down_;
  std::vector<bool> dots_;
};

// Sets the dots from one point to the next.
void DrawLine(int x0, int y0, int x1, int y1, DotGrid& grid) {
  const int steps = std::max({std::abs(x1 - x0), std::abs(y1 - y0), 1});
  for (int i = 0; i <= steps; ++i) {
    const double t = static_cast<double>(i) / steps;
    grid.Set(static_cast<int>(std::lround(x0 + t * (x1 - x0))),
             static_cast<int>(std::lround(y0 + t * (y1 - y0))));
  }
}

}  // namespace

std::vector<std::string> TerminalChart(const std::vector<std::pair<double, double>>& points,
                                       int columns, int rows, bool utf8) {
  const int width = columns - kAxisColumns - 2;
  if (columns < 20 || rows < 2 || width < 2) return {};
  DotGrid grid(width, rows, utf8);
  const auto thin = Thin(points, grid.across());
  if (thin.size() < 2) return {};
  const auto [low, high] = std::minmax_element(
      thin.begin(), thin.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const AxisScale x = ScaleOf(thin.front().first, thin.back().first, 0, grid.across() - 1);
  const AxisScale y = ScaleOf(low->second, high->second, grid.down() - 1, 0);
  int before_x = 0, before_y = 0;
  for (size_t i = 0; i < thin.size(); ++i) {
    const int at_x = static_cast<int>(std::lround(x(thin[i].first)));
    const int at_y = static_cast<int>(std::lround(y(thin[i].second)));
    DrawLine(i == 0 ? at_x : before_x, i == 0 ? at_y : before_y, at_x, at_y, grid);
    before_x = at_x;
    before_y = at_y;
  }
  std::vector<std::string> lines;
  for (int row = 0; row < rows; ++row) {
    const double at = y.high + (y.low - y.high) * row / (rows - 1);
    const bool labelled = row == 0 || row == rows - 1 || (rows >= 7 && row == rows / 2);
    lines.push_back(absl::StrCat(
        absl::StrFormat("%*s ", kAxisColumns, labelled ? AxisNumber(at) : std::string()),
        utf8 ? (labelled ? "┤" : "│") : "|", grid.Row(row)));
  }
  const std::string first = absl::StrFormat("%.10g", thin.front().first);
  const std::string last = absl::StrFormat("%.10g", thin.back().first);
  const int gap = width - static_cast<int>(first.size() + last.size());
  lines.push_back(absl::StrCat(std::string(kAxisColumns + 2, ' '), first,
                               gap > 0 ? absl::StrCat(std::string(gap, ' '), last) : ""));
  for (std::string& line : lines) line.resize(line.find_last_not_of(' ') + 1);
  return lines;
}

}  // namespace ll
