// Some lines of a terminal that are redrawn in place: only those that changed are sent, and each is
// overwritten before the rest of it is erased, so that nothing flickers and a slow link carries
// little. What was on the terminal before stays above.
#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace ll {

struct TerminalSize {
  int columns = 0;  // 0: not known
  int rows = 0;     // 0: not known
};

// What turns `before` into `now` on a terminal whose cursor stands at the start of the line below
// the last one, and stands there again afterwards. Pure.
std::string FrameUpdate(const std::vector<std::string>& before,
                        const std::vector<std::string>& now);

// Not thread-safe.
class LiveScreen {
 public:
  explicit LiveScreen(std::ostream& out) : out_(out) {}

  // Shows `lines` in place of those that are shown: cut to the width, and as many as there is room
  // for. A terminal that changed its width is drawn anew.
  void Show(const std::vector<std::string>& lines, TerminalSize size);
  // A line that stays, above what is shown.
  void PrintAbove(const std::string& line);
  // Takes back what is shown.
  void Clear();

 private:
  std::ostream& out_;
  std::vector<std::string> shown_;
  int columns_ = 0;
};

}  // namespace ll
