// A number and what it counts, as people say it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace ll {
// "1 slot", "2 slots", "0 slots", "6,738 tokens": `noun` is one whose plural has an s.
std::string Counted(int64_t count, absl::string_view noun);
}  // namespace ll
