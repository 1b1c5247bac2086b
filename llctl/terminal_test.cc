// What a terminal is sent: screens that are redrawn in place, charts, cut lines.
#include <algorithm>
#include <cmath>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "llctl/live_screen.h"
#include "llctl/output.h"
#include "llctl/terminal_chart.h"
#include "llctl/terminal_text.h"

namespace ll {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// A terminal that knows what LiveScreen uses; anything else fails the test.
class Terminal {
 public:
  void Take(const std::string& bytes) {
    for (size_t i = 0; i < bytes.size(); ++i) {
      const char c = bytes[i];
      if (c == '\r') {
        column_ = 0;
      } else if (c == '\n') {
        ++row_;
        column_ = 0;  // the line discipline's ONLCR
        Grow();
      } else if (c == '\033') {
        ASSERT_EQ(bytes[++i], '[');
        int number = 0;
        while (std::isdigit(bytes[++i])) number = number * 10 + bytes[i] - '0';
        const char what = bytes[i];
        if (what == 'A')
          row_ -= number;
        else if (what == 'B')
          row_ += number;
        else if (what == 'K')
          lines_[row_].resize(std::min(lines_[row_].size(), column_));
        else if (what == 'J')
          lines_.resize(row_ + 1), lines_[row_].clear();
        else
          FAIL() << "unknown sequence " << what;
        ASSERT_GE(row_, 0);
        Grow();
      } else {
        if (lines_[row_].size() <= column_) lines_[row_].resize(column_ + 1, ' ');
        lines_[row_][column_++] = c;
      }
    }
  }
  std::vector<std::string> lines() const {
    std::vector<std::string> out = lines_;
    while (!out.empty() && out.back().empty()) out.pop_back();
    return out;
  }

 private:
  void Grow() {
    if (lines_.size() <= static_cast<size_t>(row_)) lines_.resize(row_ + 1);
  }
  std::vector<std::string> lines_ = {""};
  int row_ = 0;
  size_t column_ = 0;
};

TEST(LiveScreenTest, EveryFrameBecomesTheNext) {
  const std::vector<std::vector<std::string>> frames = {{},
                                                        {"a"},
                                                        {"a", "b", "c"},
                                                        {"a", "x", "c"},
                                                        {"long line", "x"},
                                                        {"s", "x", "y", "z"},
                                                        {"s", "x", "y", "w"},
                                                        {},
                                                        {"again"}};
  Terminal terminal;
  for (size_t i = 1; i < frames.size(); ++i) {
    terminal.Take(FrameUpdate(frames[i - 1], frames[i]));
    EXPECT_EQ(terminal.lines(), frames[i]) << i;
  }
}

TEST(LiveScreenTest, OnlyChangedLinesAreSent) {
  EXPECT_EQ(FrameUpdate({"head", "step 1", "tail"}, {"head", "step 2", "tail"}),
            "\033[2Astep 2\033[K\r\033[2B");
  EXPECT_EQ(FrameUpdate({"same"}, {"same"}), "");
}

TEST(LiveScreenTest, CutsToTheTerminalAndKeepsLinesAbove) {
  std::ostringstream out;
  LiveScreen screen(out);
  screen.Show({"0123456789", "b", "c", "d"}, {.columns = 6, .rows = 4});
  Terminal terminal;
  terminal.Take(out.str());
  EXPECT_THAT(terminal.lines(), ElementsAre("0123…", "b", "c"));
  out.str("");
  screen.PrintAbove("event");
  terminal.Take(out.str());
  EXPECT_THAT(terminal.lines(), ElementsAre("event", "0123…", "b", "c"));
  out.str("");
  screen.Show({"e"}, {.columns = 6, .rows = 4});
  terminal.Take(out.str());
  EXPECT_THAT(terminal.lines(), ElementsAre("event", "e"));
}

TEST(TerminalTextTest, ColoursTakeNoColumnsAndEndWithTheText) {
  EXPECT_EQ(TextColumns("\033[1mä…b\033[0m"), 3u);
  EXPECT_EQ(CutToColumns("\033[1mäöü\033[0m", 3), "\033[1mäöü\033[0m");
  EXPECT_EQ(CutToColumns("\033[1mäöüx\033[0m", 3), "\033[1mäö…\033[0m");
  EXPECT_EQ(CutToColumns("abcd", 3), "ab…");
}

TEST(TerminalTextTest, WideCharactersTakeTwoColumnsAndMarksNone) {
  EXPECT_EQ(TextColumns("長文脈"), 6u);
  EXPECT_EQ(TextColumns("한국어 ok"), 9u);
  EXPECT_EQ(TextColumns("🚀1"), 3u);
  EXPECT_EQ(TextColumns("e\xCC\x81"), 1u);  // e and a combining acute
  EXPECT_EQ(CutToColumns("長文脈の", 6), "長文…");
  EXPECT_EQ(CutToColumns("長文脈", 6), "長文脈");
  Table table({"NAME", "STATE"});
  table.Add({"長文脈", "a"});
  table.Add({"plain", "b"});
  EXPECT_THAT(table.Lines(0, false), ElementsAre("NAME    STATE", "長文脈  a", "plain   b"));
}

TEST(TerminalTextTest, TheFirstLocaleThatIsSetDecides) {
  EXPECT_TRUE(IsUtf8Locale("", "", "en_US.UTF-8"));
  EXPECT_TRUE(IsUtf8Locale("", "C.utf8", "C"));
  EXPECT_FALSE(IsUtf8Locale("C", "", "en_US.UTF-8"));
  EXPECT_FALSE(IsUtf8Locale("", "", ""));
}

TEST(TerminalTextTest, Bars) {
  EXPECT_EQ(ProgressBar(0.5, 4, false), "##..");
  EXPECT_EQ(ProgressBar(0.375, 4, true), "█▌  ");
  EXPECT_EQ(ProgressBar(7, 2, true), "██");
  EXPECT_EQ(ProgressBar(std::nan(""), 2, false), "..");
  for (int i = 0; i <= 100; ++i) EXPECT_EQ(TextColumns(ProgressBar(i / 100.0, 10, true)), 10u) << i;
}

std::vector<std::pair<double, double>> Falling() {
  std::vector<std::pair<double, double>> points;
  for (int i = 1; i <= 40; ++i) points.emplace_back(i, 4.0 / i);
  return points;
}

TEST(TerminalChartTest, Ascii) {
  EXPECT_THAT(TerminalChart(Falling(), 31, 4, false),
              ElementsAre("        4 |*", "          |*", "          |***",
                          "      0.1 |  ******************", "           1                 40"));
}

TEST(TerminalChartTest, BrailleFitsAndHasNoAscii) {
  const auto chart = TerminalChart(Falling(), 40, 8, true);
  ASSERT_EQ(chart.size(), 9u);
  for (const std::string& line : chart) EXPECT_LE(TextColumns(line), 40u) << line;
  EXPECT_THAT(chart[0], HasSubstr("┤"));
  EXPECT_THAT(chart[7], HasSubstr("⣀"));
  EXPECT_THAT(chart[7], Not(HasSubstr("*")));
}

TEST(TerminalChartTest, WhatCannotBeDrawnIsNot) {
  EXPECT_TRUE(TerminalChart({{1, 2}}, 80, 10, true).empty());
  EXPECT_TRUE(TerminalChart(Falling(), 19, 10, true).empty());
  EXPECT_TRUE(TerminalChart({{1, std::nan("")}, {2, INFINITY}}, 80, 10, true).empty());
  EXPECT_EQ(TerminalChart({{1, 2}, {2, std::nan("")}, {3, 2}}, 80, 4, true).size(), 5u);
}

}  // namespace
}  // namespace ll
