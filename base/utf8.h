// Whether text is what it says, before it is sent or stored.
#pragma once

#include "absl/strings/string_view.h"

namespace ll {

// No byte of it is anything but UTF-8. Thread-safe.
bool IsUtf8(absl::string_view text);

}  // namespace ll
