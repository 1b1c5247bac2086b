// Text on a terminal: how wide it is and how it is cut. Pure functions, thread-safe.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace ll {

// Not bytes: a character of UTF-8 takes one column, two where it is wide (CJK, emoji), none where
// it is a mark on the one before; colour sequences ("\033[1m") take none.
size_t TextColumns(absl::string_view text);

// `text`, or its beginning and "…" where it is wider than `columns`; colours end with the text.
std::string CutToColumns(absl::string_view text, size_t columns);

// Whether a terminal of this locale shows UTF-8: the first of LC_ALL, LC_CTYPE and LANG that is
// not empty says so.
bool IsUtf8Locale(absl::string_view lc_all, absl::string_view lc_ctype, absl::string_view lang);

// "█████▌    " of `columns` characters, without UTF-8 "#####     "; `share` is clamped to 0 … 1.
std::string ProgressBar(double share, int columns, bool utf8);

}  // namespace ll
