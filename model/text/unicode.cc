#include "model/text/unicode.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>

#include "base/check.h"

namespace ll {
namespace {

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
