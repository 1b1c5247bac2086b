// CRC-32C (Castagnoli), as files of records use it. The distribution has no library of it.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace ll {
// Of RFC 3720, appendix B.4. Thread-safe.
uint32_t Crc32c(absl::string_view bytes);
}  // namespace ll
