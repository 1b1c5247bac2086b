// UTF-8 helpers and Unicode normalisation (ICU). Thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "base/utf8.h"

namespace ll {

// Bytes of the UTF-8 character that starts with `lead`, which must be the first byte of a valid
// one.
inline int Utf8Length(char lead) {
  const auto b = static_cast<unsigned char>(lead);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}

void AppendUtf8(uint32_t code_point, std::string& out);
// The code point at text[at], which must start a valid character; moves `at` past it.
uint32_t NextCodePoint(absl::string_view text, size_t& at);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string NormalizeUtf8(absl::string_view text, NormalForm form);
std::string LowercaseUtf8(absl::string_view text);

// Unicode's White_Space property.
bool IsWhiteSpace(uint32_t code_point);
// A letter, mark, digit or connector, as \w.
bool IsWordCharacter(uint32_t code_point);

}  // namespace ll
