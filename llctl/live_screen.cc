#include "llctl/live_screen.h"

#include "absl/strings/str_cat.h"
#include "llctl/terminal_text.h"

namespace ll {
namespace {

// `lines` down, or up where negative.
std::string CursorMove(int64_t lines) {
  if (lines == 0) return "";
  return lines > 0 ? absl::StrCat("\033[", lines, "B") : absl::StrCat("\033[", -lines, "A");
}

}  // namespace

std::string FrameUpdate(const std::vector<std::string>& before,
                        const std::vector<std::string>& now) {
  std::string out;
  const auto old = static_cast<int64_t>(before.size()), lines = static_cast<int64_t>(now.size());
  int64_t at = old;  // the cursor's line
  for (int64_t i = 0; i < lines; ++i) {
    if (i < old) {
      if (now[i] == before[i]) continue;
      absl::StrAppend(&out, CursorMove(i - at), now[i], "\033[K\r");
      at = i;
    } else {
      // Beyond what was shown only a newline makes room at the terminal's end.
      absl::StrAppend(&out, CursorMove(i - at), now[i], "\033[K\r\n");
      at = i + 1;
    }
  }
  absl::StrAppend(&out, CursorMove(lines - at));
  if (lines < old) out += "\033[J";
  return out;
}

void LiveScreen::Show(const std::vector<std::string>& lines, TerminalSize size) {
  if (columns_ != size.columns && !shown_.empty()) {
    // Lines that were wider than the terminal is now have wrapped: where they stand is not known.
    out_ << "\n";
    shown_.clear();
  }
  columns_ = size.columns;
  std::vector<std::string> fitting;
  for (const std::string& line : lines) {
    if (size.rows > 1 && static_cast<int>(fitting.size()) >= size.rows - 1) break;
    // The last column stays free: behind it, erasing the rest of a line would erase that column.
    fitting.push_back(size.columns > 1 ? CutToColumns(line, size.columns - 1) : line);
  }
  const std::string update = FrameUpdate(shown_, fitting);
  shown_ = std::move(fitting);
  if (!update.empty()) out_ << update << std::flush;
}

void LiveScreen::PrintAbove(const std::string& line) {
  const std::vector<std::string> shown = shown_;
  Clear();
  out_ << line << "\n" << FrameUpdate({}, shown) << std::flush;
  shown_ = shown;
}

void LiveScreen::Clear() {
  out_ << FrameUpdate(shown_, {}) << std::flush;
  shown_.clear();
}

}  // namespace ll
