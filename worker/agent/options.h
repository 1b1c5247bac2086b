// The flags of ll-worker.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rpc/channel.h"
#include "worker/agent/agent.h"

namespace ll {

struct WorkerOptions {
  AgentOptions agent;  // without http_address, which is known once the port is
  ChannelConfig channel;
  TrainerSandboxOptions sandbox;
  int probe_days = 0;  // the slots are measured where that is longer ago; 0: never
  std::string http;
  bool verbose = false;
  // `ll-worker preflight`: look at the host and end. What else ends the start is then a finding:
  bool preflight = false, json = false;
  bool reexec = false;  // `ll-worker reexec`: ask the running agent
  absl::Status slots_error, trainer_error;
};

// Reads flags and what they name (roots, token, GPUs). On --help or a usage error CLI11's text is
// printed and `exit_code` is set (0 or 2); other errors are a Status with the flag as its field.
absl::StatusOr<WorkerOptions> ParseWorkerOptions(int argc, char** argv,
                                                 std::optional<int>& exit_code);

}  // namespace ll
