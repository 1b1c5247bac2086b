#include "llctl/terminal_text.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace ll {
namespace {

constexpr char kEscape = '\033';
constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};

// Bytes of the sequence "\033[…LETTER" at the front of `text`; 0 where there is none.
size_t SequenceBytes(absl::string_view text) {
  if (text.size() < 2 || text[0] != kEscape || text[1] != '[') return 0;
  size_t i = 2;
  while (i < text.size() && !(text[i] >= '@' && text[i] <= '~')) ++i;
  return std::min(i + 1, text.size());
}

bool IsContinuation(char c) { return (c & 0xC0) == 0x80; }

}  // namespace

std::string Shown(absl::string_view text, bool lines, bool colors) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // "\033[1m": bold, plain, a colour; not "\033[8m", which hides.
    if (const size_t painted = colors ? SequenceBytes(text.substr(i)) : 0;
        painted > 3 && painted <= 5 && text[i + painted - 1] == 'm' && text[i + 2] != '8') {
      absl::StrAppend(&out, text.substr(i, painted));
      i += painted;
      continue;
    }
    // Control characters above ASCII are two bytes of UTF-8.
    const bool high =
        byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    const bool control = (byte < ' ' && !(lines && byte == '\n')) || byte == 0x7F || high;
    out.push_back(!control ? text[i] : byte == '\t' ? ' ' : '?');
    i += high ? 2 : 1;
  }
  return out;
}

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
