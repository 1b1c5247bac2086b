// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace ll {
std::string HumanBytes(int64_t bytes);               // "13.5 GB" (powers of 1000)
std::string HumanDuration(absl::Duration duration);  // "2d 3h", "4m 05s", "3.2s"
std::string HumanCount(int64_t count);               // "6,738,415,616"
}  // namespace ll
