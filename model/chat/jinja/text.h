// Python's string operations on UTF-8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace ll::jinja {

// str.strip(): white space as Unicode has it.
absl::string_view Strip(absl::string_view text, bool left, bool right);
// str.strip(chars).
absl::string_view StripChars(absl::string_view text, absl::string_view chars, bool left,
                             bool right);
std::string Upper(absl::string_view text);
std::string Lower(absl::string_view text);
// str.title(): a word begins behind anything that is no letter. Jinja's filter `title`: at the
// start and behind white space, - ( { [ and <.
std::string Title(absl::string_view text);
std::string TitleFilter(absl::string_view text);
// str.capitalize().
std::string Capitalize(absl::string_view text);

// Code points, the unit of len() and of slices. Each byte of broken UTF-8 counts as one.
std::vector<absl::string_view> CodePoints(absl::string_view text);

// str.split(): at runs of white space, or at each `separator`; at most `limit` cuts (< 0: all).
std::vector<std::string> Split(absl::string_view text, std::optional<absl::string_view> separator,
                               int64_t limit);
// str.replace(); limit < 0: all. `from` must not be empty.
std::string Replace(absl::string_view text, absl::string_view from, absl::string_view to,
                    int64_t limit);

// The value of a literal's inside: \n, \t, \r, \\, \', \", \0, \b, \f, \v, \xHH, \uHHHH; other
// backslashes stay.
std::string Unescape(absl::string_view inside);

// The first characters, fit for one line of a message.
std::string PrintableStart(absl::string_view text);

}  // namespace ll::jinja
