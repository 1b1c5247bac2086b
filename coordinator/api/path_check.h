// Asking the workers about a path: they read it, the coordinator may not even see it.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "proto/workers.pb.h"

namespace ll {

// What the connected workers found.
struct PathFindings {
  absl::Status status;      // of the first worker that cannot use the path, with its name
  int workers = 0;          // that answered
  std::string config_json;  // of a model, as one of them read it
};

class PathChecker {
 public:
  virtual ~PathChecker() = default;
  // Asks every connected worker. `done` is called once, on any thread, when all have answered or
  // after a few seconds with what came; at once where there is no worker.
  virtual void Check(v1::CheckPath::Kind kind, const std::string& path,
                     std::function<void(PathFindings)> done) = 0;
};

}  // namespace ll
