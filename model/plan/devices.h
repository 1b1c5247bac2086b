// Kinds of GPUs that are known before any worker has brought one. Torch-free, thread-safe.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "model/plan/memory_plan.h"

namespace ll {

// By rising memory. Kinds are spelled as workers report them; memory is the data sheet's, which is
// a little less than what a driver tells.
const std::vector<Device>& DeviceCatalogue();
// nullptr where the kind is not in the catalogue.
const Device* FindDevice(absl::string_view kind);

}  // namespace ll
