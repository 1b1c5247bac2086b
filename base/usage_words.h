// CLI11's words for a command line that it cannot take, in this project's: the flag, what was
// expected, what was found. Thread-safe.
#pragma once

#include <string>

namespace ll {

// "--top-p: Value 2 not in range 0.000000 to 1.000000" as "--top-p: expected a number from 0 to 1,
// found 2", and likewise a choice that is none, a number that is none, a flag without its value and
// one given twice. Any other message is itself.
std::string UsageInWords(const std::string& message);

}  // namespace ll
