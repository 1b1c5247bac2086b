// Which known name an unknown one is a slip of the pen of, for "did you mean". Thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace ll {

// Characters to add, take away or change until `a` is `b` (Levenshtein).
size_t EditDistance(absl::string_view a, absl::string_view b);

// The nearest of `known` (of equally near ones the first), "" where none is nearer than a third of
// the name's characters, or two of a short name's.
std::string NearestName(absl::string_view name, const std::vector<std::string>& known);

}  // namespace ll
