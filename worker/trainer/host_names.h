// Which host each rank runs on.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/trainer/comm/comm.h"

namespace ll {

// By rank, as the hosts call themselves, cut to 63 characters. Collective.
absl::StatusOr<std::vector<std::string>> HostNames(Comm& comm);

}  // namespace ll
