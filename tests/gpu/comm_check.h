// The Comm conformance suite (worker/trainer/comm/conformance.h) over NCCL, or over Gloo on a CPU,
// one process a rank.
#pragma once

#include <functional>
#include <string>

#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace ll::gpu {

struct CommCheckOptions {
  int ranks = 1;
  std::string device = "cuda";  // or cpu
  // All ranks on one GPU, each with a host name of its own for NCCL, which otherwise refuses that;
  // bytes go through sockets. For tests alone.
  bool share = false;
  absl::Duration limit = absl::Seconds(120);  // for everything
};

// Starts this program again for each rank (CheckRank) and waits for them; writes a line for a rank
// that was ended or late. Whether all ended well.
bool CheckComm(const CommCheckOptions& options,
               const std::function<void(const nlohmann::ordered_json&)>& write);

// One rank, whose peers are found through `address`: hands `write` a line for each case (status ok
// or wrong with the message). Where ranks that share a GPU cannot connect, a line with status
// refused and what NCCL says, which is no fault of this project's: true then too.
bool CheckRank(const CommCheckOptions& options, int rank, const std::string& address,
               const std::function<void(const nlohmann::ordered_json&)>& write);

}  // namespace ll::gpu
