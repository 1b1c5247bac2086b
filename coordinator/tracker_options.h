// Who else is told of jobs (docs/trackers.md).
#pragma once

#include <string>

namespace ll {

// Empty: that one is off.
struct TrackerOptions {
  std::string tensorboard_dir;
  std::string mlflow, mlflow_headers;  // the server's address; a file with headers
  std::string mlflow_experiment = "ll";
  std::string otlp_endpoint, otlp_headers;
  bool any() const { return !tensorboard_dir.empty() || !mlflow.empty() || !otlp_endpoint.empty(); }
};

}  // namespace ll
