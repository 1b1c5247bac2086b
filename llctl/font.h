// DejaVu Sans, as the distribution has it.
#pragma once

#include "absl/strings/string_view.h"

namespace ll {

absl::string_view FontFile();

}  // namespace ll
