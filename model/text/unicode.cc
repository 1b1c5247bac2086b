#include "model/text/unicode.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

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

const icu::Normalizer2& Normalizer(NormalForm form) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* n = nullptr;
  switch (form) {
    case NormalForm::kNfc:
      n = icu::Normalizer2::getNFCInstance(error);
      break;
    case NormalForm::kNfd:
      n = icu::Normalizer2::getNFDInstance(error);
      break;
    case NormalForm::kNfkc:
      n = icu::Normalizer2::getNFKCInstance(error);
      break;
    case NormalForm::kNfkd:
      n = icu::Normalizer2::getNFKDInstance(error);
      break;
  }
  LL_CHECK_MSG(U_SUCCESS(error) && n != nullptr, "ICU's data are not installed");
  return *n;
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

void AppendUtf8(uint32_t c, std::string& out) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0 | (c >> 6)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | (c >> 12)));
    out.push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | (c >> 18)));
    out.push_back(static_cast<char>(0x80 | ((c >> 12) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

uint32_t NextCodePoint(absl::string_view text, size_t& at) {
  const int length = Utf8Length(text[at]);
  const auto b = static_cast<unsigned char>(text[at]);
  uint32_t c = length == 1 ? b : b & (0x7F >> length);
  for (int i = 1; i < length; ++i) c = (c << 6) | (static_cast<unsigned char>(text[at + i]) & 0x3F);
  at += static_cast<size_t>(length);
  return c;
}

std::string NormalizeUtf8(absl::string_view text, NormalForm form) {
  if (std::all_of(text.begin(), text.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x80; })) {
    return std::string(text);
  }
  UErrorCode error = U_ZERO_ERROR;
  const auto source = icu::UnicodeString::fromUTF8(
      icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
  const icu::UnicodeString normal = Normalizer(form).normalize(source, error);
  LL_CHECK_MSG(U_SUCCESS(error), "ICU normalisation failed");
  std::string out;
  normal.toUTF8String(out);
  return out;
}

std::string LowercaseUtf8(absl::string_view text) {
  std::string out;
  for (size_t at = 0;
       at < text.size();) {  // per character, without the rules of a language or a context
    icu::UnicodeString c(static_cast<UChar32>(NextCodePoint(text, at)));
    c.toLower(icu::Locale::getRoot()).toUTF8String(out);
  }
  return out;
}

bool IsWhiteSpace(uint32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)); }

bool IsWordCharacter(uint32_t c) {
  const auto p = static_cast<UChar32>(c);
  return u_hasBinaryProperty(p, UCHAR_ALPHABETIC) || u_charType(p) == U_DECIMAL_DIGIT_NUMBER ||
         (U_GET_GC_MASK(p) & (U_GC_M_MASK | U_GC_PC_MASK)) != 0 ||
         u_hasBinaryProperty(p, UCHAR_JOIN_CONTROL);
}

}  // namespace ll
