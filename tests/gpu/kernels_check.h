// The kernels' error beside torch's own, and their bandwidth.
#pragma once

#include <functional>

#include "nlohmann/json.hpp"
#include "tests/gpu/operations.h"

namespace ll::gpu {

// One line on `operation` on `device`, judged against fp64: `error` (largest difference over the
// largest value, of the output that is worst beside its limit), `torch_error` (of the same output
// by plain torch in `type`), `limit` (twice that and a few units in the last place of the output's
// type), status ok or wrong, with a message where something but the error is wrong.
nlohmann::ordered_json JudgeKernel(const Operation& operation, at::ScalarType type, Shape shape,
                                   at::Device device);

// Hands `write` JudgeKernel's line for every operation and type, on no rows, one row, odd widths
// and wide ones; with `small`, for tools that slow everything down, not the wide ones. Returns
// whether all are ok.
bool CheckKernels(at::Device device, bool small,
                  const std::function<void(const nlohmann::ordered_json&)>& write);

// For each operation, on a shape that fills a GPU: seconds (median), bytes moved, their share of
// what a device-to-device copy of the same size reaches.
void TimeKernels(const std::function<void(const nlohmann::ordered_json&)>& write);

}  // namespace ll::gpu
