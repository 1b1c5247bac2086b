// What the link between two ranks of one host carries, as far as one process can tell.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace ll {

// Bytes a second that a rank sends while it receives as many: two ranks in this process exchange
// tensors of `bytes` over Gloo and this host's loopback for `budget`, and share the threads that
// one rank has. The operating system's and Gloo's own work is in it, which is most of it: what the
// sockets alone carry is several times that. Errors are those of comm/comm.h.
absl::StatusOr<double> LinkBandwidth(int64_t bytes, absl::Duration budget, Clock& clock);

}  // namespace ll
