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

struct Range {
  char32_t first, last;
};
// Unicode's East Asian Width W and F (Annex 11), adjoining blocks joined, and the emoji.
constexpr Range kWide[] = {
    {0x1100, 0x115F},   {0x2E80, 0x303E},   {0x3041, 0xA4CF},  {0xA960, 0xA97F}, {0xAC00, 0xD7A3},
    {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},   {0xFF01, 0xFF60},  {0xFFE0, 0xFFE6}, {0x1F300, 0x1F64F},
    {0x1F680, 0x1F6FF}, {0x1F900, 0x1FAFF}, {0x20000, 0x3FFFD}};
// Marks that stand on the character before, joiners and selectors.
constexpr Range kNone[] = {{0x300, 0x36F},   {0x1AB0, 0x1AFF}, {0x1DC0, 0x1DFF}, {0x200B, 0x200F},
                           {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}};

template <size_t N>
bool IsIn(const Range (&ranges)[N], char32_t c) {
  return std::any_of(ranges, ranges + N,
                     [c](const Range& r) { return r.first <= c && c <= r.last; });
}

// What stands at the front of a text that is not empty.
struct Piece {
  size_t bytes;
  size_t columns;
  bool color = false;
};

Piece FirstPiece(absl::string_view text) {
  if (const size_t skipped = SequenceBytes(text); skipped > 0) return {skipped, 0, true};
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {1, 1};
  char32_t c = lead & (lead < 0xE0 ? 0x1F : lead < 0xF0 ? 0x0F : 0x07);
  size_t bytes = 1;
  for (; bytes < text.size() && (text[bytes] & 0xC0) == 0x80; ++bytes)
    c = c << 6 | (text[bytes] & 0x3F);
  return {bytes, IsIn(kNone, c) ? 0u : IsIn(kWide, c) ? 2u : 1u};
}

}  // namespace

size_t TextColumns(absl::string_view text) {
  // Most cells of a long table.
  const auto is_plain = [](char c) { return c >= ' ' && c <= '~'; };
  if (std::all_of(text.begin(), text.end(), is_plain)) return text.size();
  size_t columns = 0;
  while (!text.empty()) {
    const Piece piece = FirstPiece(text);
    columns += piece.columns;
    text.remove_prefix(piece.bytes);
  }
  return columns;
}

std::string CutToColumns(absl::string_view text, size_t columns) {
  if (TextColumns(text) <= columns) return std::string(text);
  if (columns <= 1) return std::string(columns, '.');
  std::string out;
  size_t used = 0;
  bool colored = false;
  while (!text.empty()) {
    const Piece piece = FirstPiece(text);
    used += piece.columns;
    if (used > columns - 1) break;
    colored = colored || piece.color;
    absl::StrAppend(&out, text.substr(0, piece.bytes));
    text.remove_prefix(piece.bytes);
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
