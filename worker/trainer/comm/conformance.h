// What every transport of Comm must do, case by case: run over Gloo by comm_test.cc, over NCCL by
// gpu_check comm (tests/gpu).
#pragma once

#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "worker/trainer/comm/comm.h"

namespace ll {

struct ConformanceCase {
  std::string name;
  // Collective over the ranks of `comm`, one or more, each of which checks what it got; the tensors
  // lie on `device`. Internal with what was wrong, or the transport's own error.
  absl::Status (*run)(Comm& comm, at::Device device);
};

const std::vector<ConformanceCase>& ConformanceCases();

}  // namespace ll
