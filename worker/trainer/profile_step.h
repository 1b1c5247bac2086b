// What a training step's time goes to, by operation, beside what the device would need at least.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "kernels/common/torch_op_trace.h"
#include "model/plan/devices.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/setup.h"

namespace ll {

// All figures are of one step: means over steps, whose rows may differ in length.
struct StepProfile {
  struct Row {
    std::string phase, operation;
    double calls = 0, seconds = 0;
    OpWork work;
  };
  std::vector<Row> rows;  // by falling seconds
  // Of steps without a trace, with so many tokens; and of those that were traced, as `rows` were,
  // which wait for the device after every operation.
  double step_seconds = 0, tokens = 0, traced_seconds = 0;
  double loss = 0;  // of the last step
};

// Takes one step that is not counted, then `steps` without and `steps` with a trace, on this
// process alone; nothing is written. `training` is used up. Errors: as RunStep's.
absl::StatusOr<StepProfile> ProfileStep(Training& training, int64_t steps, Clock& clock);

// The least seconds of an operation on such a device, by its data sheet (DeviceRates::peak, twice
// that for products of fp8) or, where that is not known, by the products that were measured; and by
// its memory's bandwidth: the roofline (Williams et al. 2009). 0: not known.
double FloorSeconds(const StepProfile::Row& row, const DeviceRates& rates);

std::string StepProfileText(const StepProfile& profile, const DeviceRates& rates);
nlohmann::ordered_json StepProfileJson(const StepProfile& profile, const DeviceRates& rates);

}  // namespace ll
