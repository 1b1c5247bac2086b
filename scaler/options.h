// The flags of ll-scaler.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/channel.h"
#include "scaler/decide.h"
#include "scaler/kubernetes.h"

namespace ll {

struct ScalerOptions {
  ScalingLimits limits;
  absl::Duration poll;
  StatefulSetAddress stateful_set;
  ChannelConfig channel;  // without the token
  std::string token_file;
  std::string http;
  bool verbose = false;
};

// Reads flags, and what a pod finds of its cluster. On --help or a usage error the text is printed
// and `exit_code` is set (0 or 2); other errors are a Status with the flag as its field.
absl::StatusOr<ScalerOptions> ParseScalerOptions(int argc, char** argv,
                                                 std::optional<int>& exit_code);

}  // namespace ll
