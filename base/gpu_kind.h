// How a GPU's name becomes the kind that plans, slots and measurements go by. Thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace ll {

// "NVIDIA A100-SXM4-80GB" -> "A100-80", "NVIDIA H100 80GB HBM3" -> "H100"; another name stays,
// without the vendor.
std::string GpuKind(absl::string_view name, int64_t memory_bytes);

}  // namespace ll
