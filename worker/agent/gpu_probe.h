// The slots of this host: its GPUs, or shares of its memory for CPU ranks. Thread-safe functions.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/gpu_kind.h"
#include "proto/workers.pb.h"

namespace ll {

// Path of nvidia-smi where it is installed, else empty.
std::string NvidiaSmi();

// What `nvidia-smi --query-gpu=index,name,memory.total --format=csv,noheader,nounits` prints, as
// slots. Errors: a line that is not "INDEX, NAME, MEBIBYTES".
absl::StatusOr<std::vector<v1::Slot>> ParseGpuList(absl::string_view text);

// This host's GPUs; none where there is no nvidia-smi or no device. Waits at most `timeout` for the
// driver. Errors: nvidia-smi is there but fails or hangs.
absl::StatusOr<std::vector<v1::Slot>> ProbeGpus(absl::Duration timeout);

// Of `gpus`, those that "all" or a list as "0,2" names. Errors (field "gpus"): not a list, no such
// GPU, one twice.
absl::StatusOr<std::vector<v1::Slot>> SelectGpus(std::vector<v1::Slot> gpus,
                                                 absl::string_view selection);

// `count` CPU slots of `slot_bytes` each; 0: equal shares of what the host (or the container's
// limit) has.
std::vector<v1::Slot> CpuSlots(int count, int64_t slot_bytes);

}  // namespace ll
