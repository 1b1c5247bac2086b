#include "base/terminal_text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace ll {

size_t SequenceBytes(absl::string_view text) {
  if (text.size() < 2 || text[0] != '\033' || text[1] != '[') return 0;
  size_t i = 2;
  while (i < text.size() && !(text[i] >= '@' && text[i] <= '~')) ++i;
  return std::min(i + 1, text.size());
}

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

}  // namespace ll
