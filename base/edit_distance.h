// How far a name is from one that is known, for "did you mean". Thread-safe.
#pragma once

#include <algorithm>
#include <cstddef>

#include "absl/strings/string_view.h"

namespace ll {

// Characters to add, take away or change until `a` is `b` (Levenshtein).
size_t EditDistance(absl::string_view a, absl::string_view b);

// Beyond it a name is not a slip of the pen of `name`.
inline size_t MostSlips(absl::string_view name) { return std::max<size_t>(2, name.size() / 3); }

}  // namespace ll
