#include "llctl/terminal_text.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/terminal_text.h"

namespace ll {
namespace {

constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};

bool IsContinuation(char c) { return (c & 0xC0) == 0x80; }

}  // namespace

size_t TextColumns(absl::string_view text) {
  // Most cells of a long table.
  const auto is_plain = [](char c) { return c >= ' ' && c <= '~'; };
  if (std::all_of(text.begin(), text.end(), is_plain)) return text.size();
  size_t columns = 0;
  for (size_t i = 0; i < text.size();) {
    if (const size_t skipped = SequenceBytes(text.substr(i)); skipped > 0) {
      i += skipped;
      continue;
    }
    if (!IsContinuation(text[i])) ++columns;
    ++i;
  }
  return columns;
}

std::string CutToColumns(absl::string_view text, size_t columns) {
  if (TextColumns(text) <= columns) return std::string(text);
  if (columns <= 1) return std::string(columns, '.');
  std::string out;
  size_t used = 0;
  bool colored = false;
  for (size_t i = 0; i < text.size();) {
    if (const size_t skipped = SequenceBytes(text.substr(i)); skipped > 0) {
      absl::StrAppend(&out, text.substr(i, skipped));
      colored = true;
      i += skipped;
      continue;
    }
    if (!IsContinuation(text[i]) && ++used > columns - 1) break;
    out.push_back(text[i++]);
  }
  return absl::StrCat(out, "…", colored ? "\033[0m" : "");
}

bool IsUtf8Locale(absl::string_view lc_all, absl::string_view lc_ctype, absl::string_view lang) {
  const std::string locale = absl::AsciiStrToLower(!lc_all.empty()     ? lc_all
                                                   : !lc_ctype.empty() ? lc_ctype
                                                                       : lang);
  return absl::StrContains(locale, "utf-8") || absl::StrContains(locale, "utf8");
}

std::string ProgressBar(double share, int columns, bool utf8) {
  if (columns <= 0) return "";
  const double filled = std::clamp(std::isfinite(share) ? share : 0.0, 0.0, 1.0) * columns;
  const int whole = static_cast<int>(filled);
  if (!utf8) return std::string(whole, '#') + std::string(columns - whole, '.');
  std::string bar;
  for (int i = 0; i < whole; ++i) bar += "█";
  const int eighths = static_cast<int>((filled - whole) * 8);
  bar += kEighths[eighths];
  return bar + std::string(columns - whole - (eighths > 0 ? 1 : 0), ' ');
}

}  // namespace ll
