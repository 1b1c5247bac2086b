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
  // kLeastRepeats times.
  absl::Duration budget = absl::Seconds(12);
  bool small = false;  // shapes that take a second on any CPU: whether it works, not how fast
};
inline constexpr int kLeastRepeats = 3;

// One JSON object, as ParseCalibration reads it: device, host, time, build, threads, gemm_flops
// (bf16 products of tokens with a layer's weights), attention_flops (exact causal FLOPs, S²-Attn,
// forward and backward), both in fp32 too (gemm_fp32_flops, attention_fp32_flops), memory_bandwidth
// (a copy, bytes read and written), elementwise_bandwidth, expansion_bandwidth and
// optimizer_bandwidth (as model/plan/time_plan.h counts a layer's other kernels, NF4's expansion
// and AdamW), link_bandwidth (TCP over loopback, one way; 0 on a GPU, whose links one process does
// not see), seconds (that it took). Medians. On the device that UseDevice chose, with
// at::get_num_threads() threads. Errors: ResourceExhausted, or a loopback connection that failed.
absl::StatusOr<nlohmann::ordered_json> ProbeDevice(const ProbeOptions& options, Clock& clock);

}  // namespace ll
