// The GPU's kernels against the CPU's, and their bandwidth.
#pragma once

#include <functional>

#include "nlohmann/json.hpp"

namespace ll::gpu {

// Hands `write` one JSON line for each operation, shape and type: error (largest difference over
// the largest value), status ok or wrong; outputs are filled with NaN before. Returns whether all
// are ok.
bool CheckKernels(const std::function<void(const nlohmann::ordered_json&)>& write);

// The same for each operation on a shape that fills the device: seconds (median), bytes moved,
// their share of what a device-to-device copy of the same size reaches.
void TimeKernels(const std::function<void(const nlohmann::ordered_json&)>& write);

}  // namespace ll::gpu
