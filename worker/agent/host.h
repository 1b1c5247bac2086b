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

// Holds a work directory until the last owner is gone. The descriptor keeps the lock also in a
// program that is executed in this process's place.
struct HostLock {
  explicit HostLock(int fd_in) : fd(fd_in) {}
  HostLock(const HostLock&) = delete;
  HostLock& operator=(const HostLock&) = delete;
  ~HostLock();
  const int fd;
};

class Host {
 public:
  virtual ~Host() = default;
  virtual Files& files() = 0;
  // As RankProcess::Start.
  virtual absl::StatusOr<std::unique_ptr<RankProcess>> StartRank(const RankCommand& command) = 0;
  // As RankProcess::Adopt.
  virtual absl::StatusOr<std::unique_ptr<RankProcess>> AdoptRank(const RankHandover& from) = 0;
  // Holds `path` against other agents until the last owner of the result is gone. AlreadyExists:
  // another holds it.
  virtual absl::StatusOr<std::shared_ptr<HostLock>> Lock(const std::string& path) = 0;
  // As process_marker.h's.
  virtual int KillMarked(absl::string_view prefix, int wait_ms) = 0;
};

// Never deleted.
Host& RealHost();

}  // namespace ll
