#include "base/utf8.h"

#include <cstdint>
#include <cstring>

namespace ll {
namespace {

// Length of the valid UTF-8 character at the front of `text`; 0 where there is none, and then
// `*bad` is the length of the maximal invalid part (Unicode 15, 3.9, "maximal subpart").
size_t ValidLength(absl::string_view text, size_t* bad) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  *bad = 1;
  const unsigned b = byte(0);
  if (b < 0x80) return 1;
  const size_t length = b >= 0xF0 ? 4 : b >= 0xE0 ? 3 : 2;
  if (b < 0xC2 || b > 0xF4) return 0;
  unsigned low = 0x80,
           high = 0xBF;  // of the second byte: no overlong forms, surrogates, or beyond U+10FFFF
  if (b == 0xE0) low = 0xA0;
  if (b == 0xED) high = 0x9F;
  if (b == 0xF0) low = 0x90;
  if (b == 0xF4) high = 0x8F;
  for (size_t i = 1; i < length; ++i) {
    if (i >= text.size() || byte(i) < low || byte(i) > high) {
      *bad = i;
      return 0;
    }
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

}  // namespace

bool IsValidUtf8(absl::string_view text) {
  size_t bad;
  while (!text.empty()) {
    uint64_t eight;
    if (text.size() >= sizeof(eight)) {  // most text is ASCII
      std::memcpy(&eight, text.data(), sizeof(eight));
      if ((eight & 0x8080808080808080u) == 0) {
        text.remove_prefix(sizeof(eight));
        continue;
      }
    }
    const size_t n = ValidLength(text, &bad);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

std::string ReplaceInvalidUtf8(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    size_t bad = 0;
    const size_t n = ValidLength(text, &bad);
    out.append(n > 0 ? std::string(text.substr(0, n)) : "\xEF\xBF\xBD");
    text.remove_prefix(n > 0 ? n : bad);
  }
  return out;
}

}  // namespace ll
