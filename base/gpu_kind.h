// How a GPU's name becomes the kind that plans, slots and measurements go by. Thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace ll {

// "NVIDIA A100-SXM4-80GB" -> "A100-80", "NVIDIA H100 80GB HBM3" -> "H100"; another name stays,
// without the vendor.
std::string GpuKind(absl::string_view name, int64_t memory_bytes);

// Whether slots of `kind` are of the type that a user wrote: the kind itself, whatever the case of
// its letters, or its family, as "a100" is of "A100-40" and "A100-80".
bool IsOfGpuType(absl::string_view kind, absl::string_view type);

}  // namespace ll
