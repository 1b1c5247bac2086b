// The files of ui/, as the build put them into the program.
#pragma once

#include "absl/strings/string_view.h"

namespace ll {

extern const absl::string_view kStyle, kScript, kIcon;

}  // namespace ll
