#include "worker/agent/host.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"
#include "worker/agent/process_marker.h"

namespace ll {
namespace {

class ThisHost : public Host {
 public:
  Files& files() override { return RealFiles(); }
  absl::StatusOr<std::unique_ptr<RankProcess>> StartRank(const RankCommand& command) override {
    return RankProcess::Start(command);
  }
  absl::StatusOr<std::unique_ptr<RankProcess>> AdoptRank(const RankHandover& from) override {
    return RankProcess::Adopt(from);
  }
  absl::StatusOr<std::shared_ptr<HostLock>> Lock(const std::string& path) override {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
    auto lock = std::make_shared<HostLock>(fd);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) return absl::AlreadyExistsError(path);
    return lock;
  }
  int KillMarked(absl::string_view prefix, int wait_ms) override {
    return ll::KillMarked(prefix, wait_ms);
  }
};

}  // namespace

HostLock::~HostLock() { close(fd); }

Host& RealHost() {
  static Host& host = *new ThisHost;
  return host;
}

}  // namespace ll
