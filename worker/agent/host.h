// The machine that an agent runs on, injected: files, and trainer processes. The simulator puts its
// own in the place of both, so that it runs the shipped agent.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/files.h"
#include "worker/agent/rank_process.h"

namespace ll {

class Host {
 public:
  virtual ~Host() = default;
  virtual Files& files() = 0;
  // As RankProcess::Start.
  virtual absl::StatusOr<std::unique_ptr<RankProcess>> StartRank(const RankCommand& command) = 0;
  // Holds `path` against other agents until the last owner of the result is gone. AlreadyExists:
  // another holds it.
  virtual absl::StatusOr<std::shared_ptr<void>> Lock(const std::string& path) = 0;
  // As process_marker.h's.
  virtual int KillMarked(absl::string_view prefix, int wait_ms) = 0;
};

// Never deleted.
Host& RealHost();

}  // namespace ll
