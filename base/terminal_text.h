// What a terminal may be shown of a text that somebody else wrote. Pure functions, thread-safe.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace ll {

// Bytes of the sequence "\033[…LETTER" at the front of `text`; 0 where there is none.
size_t SequenceBytes(absl::string_view text);

// `text` without what a terminal would obey: control characters are '?', a tab is a blank, and
// lines end only where `lines` lets them. With `colors` the colours that llctl itself paints with
// stay. A text that comes in pieces is to be cut between characters.
std::string Shown(absl::string_view text, bool lines = false, bool colors = false);

}  // namespace ll
