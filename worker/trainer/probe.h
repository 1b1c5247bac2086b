// How fast this host's device does what training is made of: the figures that plans are made with
// (model/plan/devices.h). Each is measured on the code paths and shapes of a training step.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "nlohmann/json.hpp"

namespace ll {

struct ProbeOptions {
  // For all measurements together, about; each is repeated within its share of it, at least
  // kLeastRepeats times where twice its share is enough for that.
  absl::Duration budget = absl::Seconds(8);
  bool small = false;  // shapes that take a second on any CPU: whether it works, not how fast
};
inline constexpr int kLeastRepeats = 3;

// One JSON object, as ParseCalibration reads it: device, host, time, build, threads, the rates of
// model/plan/devices.h by their names, and seconds (that it took). A small model with random
// weights is trained, and the rates are what its operations reach under a trace
// (kernels/common/torch_op_trace.h): S²-Attn and full attention in bf16, from which attention's
// rate and what a query costs besides follow; with an NF4 base; in fp32, on half a row. Apart from
// it memory_bandwidth (a copy, bytes read and written), rank_wait (of a wide product's times) and
// link_bandwidth (probe_link.h; 0 on a GPU, whose links one process does not see). Medians. On the
// device that UseDevice chose, with at::get_num_threads() threads. Errors: ResourceExhausted, or an
// exchange that failed.
absl::StatusOr<nlohmann::ordered_json> ProbeDevice(const ProbeOptions& options, Clock& clock);

}  // namespace ll
