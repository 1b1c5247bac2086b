#include "model/chat/jinja/text.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace ll::jinja {
namespace {

// The code point at text[at] and its length; broken bytes are U+FFFD of length 1.
UChar32 At(absl::string_view text, size_t at, size_t& length) {
  int32_t next = 0;
  UChar32 c = 0;
  const absl::string_view rest = text.substr(at, 4);
  U8_NEXT_OR_FFFD(reinterpret_cast<const uint8_t*>(rest.data()), next,
                  static_cast<int32_t>(rest.size()), c);
  length = c == 0xfffd && !absl::StartsWith(rest, "\xef\xbf\xbd") ? 1 : static_cast<size_t>(next);
  return c;
}

// str.isspace(): Unicode's White_Space and the four ASCII separators.
bool IsSpace(UChar32 c) { return u_isUWhiteSpace(c) || (c >= 0x1c && c <= 0x1f); }

template <typename Wanted>
absl::string_view StripWhere(absl::string_view text, bool left, bool right, const Wanted& wanted) {
  size_t begin = 0, end = text.size();
  for (size_t length = 0; left && begin < end && wanted(At(text, begin, length));) begin += length;
  while (right && end > begin) {
    size_t start = end - 1;
    while (start > begin && end - start < 4 && (static_cast<uint8_t>(text[start]) & 0xc0) == 0x80)
      --start;
    size_t length = 0;
    const UChar32 c = At(text, start, length);
    if (start + length != end || !wanted(c)) break;
    end = start;
  }
  return text.substr(begin, end - begin);
}

icu::UnicodeString Wide(absl::string_view text) {
  return icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())});
}

std::string Narrow(const icu::UnicodeString& text) {
  std::string out;
  text.toUTF8String(out);
  return out;
}

int HexValue(char c) {
  if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return -1;
  return c <= '9' ? c - '0' : (absl::ascii_tolower(static_cast<unsigned char>(c)) - 'a' + 10);
}

// \xHH and \uHHHH at inside[at] (behind the letter); false where the digits are not there.
bool AppendHex(absl::string_view inside, size_t at, size_t digits, std::string& out) {
  if (at + digits > inside.size()) return false;
  UChar32 c = 0;
  for (size_t i = 0; i < digits; ++i) {
    const int digit = HexValue(inside[at + i]);
    if (digit < 0) return false;
    c = c * 16 + digit;
  }
  icu::UnicodeString(c).toUTF8String(out);
  return true;
}

}  // namespace

absl::string_view Strip(absl::string_view text, bool left, bool right) {
  return StripWhere(text, left, right, IsSpace);
}

absl::string_view StripChars(absl::string_view text, absl::string_view chars, bool left,
                             bool right) {
  std::vector<UChar32> set;
  for (size_t i = 0, length = 0; i < chars.size(); i += length) set.push_back(At(chars, i, length));
  return StripWhere(text, left, right,
                    [&](UChar32 c) { return std::find(set.begin(), set.end(), c) != set.end(); });
}

std::string Upper(absl::string_view text) {
  return Narrow(Wide(text).toUpper(icu::Locale::getRoot()));
}
std::string Lower(absl::string_view text) {
  return Narrow(Wide(text).toLower(icu::Locale::getRoot()));
}

std::string Title(absl::string_view text) {
  std::string out;
  bool inside = false;
  for (const absl::string_view c : CodePoints(text)) {
    size_t length = 0;
    const bool letter = u_isalpha(At(c, 0, length));
    out += !letter ? std::string(c) : inside ? Lower(c) : Upper(c);
    inside = letter;
  }
  return out;
}

std::string TitleFilter(absl::string_view text) {
  std::string out;
  bool inside = false;
  for (const absl::string_view c : CodePoints(text)) {
    size_t length = 0;
    const bool border =
        IsSpace(At(c, 0, length)) || absl::string_view("-({[<").find(c) != absl::string_view::npos;
    out += border ? std::string(c) : inside ? Lower(c) : Upper(c);
    inside = !border;
  }
  return out;
}

std::string Capitalize(absl::string_view text) {
  if (text.empty()) return "";
  const absl::string_view first = CodePoints(text.substr(0, 4))[0];
  return Upper(first) + Lower(text.substr(first.size()));
}

std::vector<absl::string_view> CodePoints(absl::string_view text) {
  std::vector<absl::string_view> out;
  for (size_t i = 0, length = 0; i < text.size(); i += length) {
    At(text, i, length);
    out.push_back(text.substr(i, length));
  }
  return out;
}

std::vector<std::string> Split(absl::string_view text, std::optional<absl::string_view> separator,
                               int64_t limit) {
  std::vector<std::string> out;
  const auto more = [&] { return limit < 0 || static_cast<int64_t>(out.size()) < limit; };
  if (separator) {
    for (size_t cut = text.find(*separator); cut != absl::string_view::npos && more();
         cut = text.find(*separator)) {
      out.emplace_back(text.substr(0, cut));
      text.remove_prefix(cut + separator->size());
    }
    out.emplace_back(text);
    return out;
  }
  text = Strip(text, true, !(limit >= 0));
  while (!text.empty()) {
    size_t end = 0, length = 0;
    while (more() && end < text.size() && !IsSpace(At(text, end, length))) end += length;
    if (!more()) end = Strip(text, false, true).size();
    out.emplace_back(text.substr(0, end));
    text = Strip(text.substr(end), true, false);
  }
  return out;
}

std::string Replace(absl::string_view text, absl::string_view from, absl::string_view to,
                    int64_t limit) {
  std::string out;
  for (size_t cut = text.find(from); cut != absl::string_view::npos && limit != 0; --limit) {
    out.append(text.data(), cut);
    out.append(to.data(), to.size());
    text.remove_prefix(cut + from.size());
    cut = text.find(from);
  }
  return out.append(text.data(), text.size());
}

std::string Unescape(absl::string_view inside) {
  static constexpr absl::string_view kLetters = "ntr\\'\"0bfv";
  static constexpr char kValues[] = {'\n', '\t', '\r', '\\', '\'', '"', '\0', '\b', '\f', '\v'};
  std::string out;
  for (size_t i = 0; i < inside.size(); ++i) {
    if (inside[i] != '\\' || i + 1 == inside.size()) {
      out += inside[i];
      continue;
    }
    const char letter = inside[i + 1];
    const size_t known = kLetters.find(letter), digits = letter == 'x' ? 2 : 4;
    if (letter == '\n') {
      ++i;  // a line goes on
    } else if (known != absl::string_view::npos) {
      out += kValues[known];
      ++i;
    } else if ((letter == 'x' || letter == 'u') && AppendHex(inside, i + 2, digits, out)) {
      i += 1 + digits;
    } else {
      out += '\\';
    }
  }
  return out;
}

std::string PrintableStart(absl::string_view text) {
  std::string out(text.substr(0, 24));
  for (char& c : out) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
  return out;
}

}  // namespace ll::jinja
