// Text of others, cut to what a record or an answer may hold.
#pragma once

#include <cstddef>

#include "absl/strings/string_view.h"

namespace ll {

// The longest beginning of `text` of at most `most` bytes that ends with a whole character of
// UTF-8: half of one in a message's field makes the whole message unreadable.
inline absl::string_view CutText(absl::string_view text, size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
  return text.substr(0, most);
}

}  // namespace ll
