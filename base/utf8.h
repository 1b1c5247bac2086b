// Whether text is UTF-8, and what to make of it where it is not, before it is sent or stored.
// Thread-safe.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace ll {

bool IsValidUtf8(absl::string_view text);
// Every maximal invalid part becomes one U+FFFD, as Python's and Rust's lossy decoding do.
std::string ReplaceInvalidUtf8(absl::string_view text);
// The longest beginning of `text` of at most `most` bytes that ends with a whole character of
// UTF-8: half of one in a message's field makes the whole message unreadable.
inline absl::string_view CutText(absl::string_view text, size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
  return text.substr(0, most);
}

}  // namespace ll
