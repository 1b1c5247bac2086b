#include "rpc/service_notify.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

// The manager's end of the socket.
class Manager {
 public:
  Manager() {
    fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~Manager() { close(fd_); }
  // Empty: nothing has come.
  std::string Next() {
    char buffer[4096];
    const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
    return n < 0 ? "" : std::string(buffer, static_cast<size_t>(n));
  }
  const std::string& path() const { return path_; }

 private:
  const TempDir dir_;
  const std::string path_ = dir_.path() + "/notify";
  int fd_;
};

TEST(ServiceNotify, SpeaksTheProtocol) {
  Manager manager;
  const ServiceNotify notify(manager.path(), absl::Seconds(60));
  notify.Ready("serving\nREADY=0");
  EXPECT_EQ(manager.Next(), "READY=1\nSTATUS=serving READY=0");
  notify.Status("headless");
  EXPECT_EQ(manager.Next(), "STATUS=headless");
  notify.Alive();
  EXPECT_EQ(manager.Next(), "WATCHDOG=1");
  notify.Stopping();
  EXPECT_EQ(manager.Next(), "STOPPING=1");
  EXPECT_EQ(manager.Next(), "");
  EXPECT_EQ(notify.watchdog_interval(), absl::Seconds(30));
}

TEST(ServiceNotify, IsSilentWhenNobodyAsked) {
  Manager manager;
  const ServiceNotify nobody("", absl::Seconds(1));
  nobody.Ready("x");
  const ServiceNotify unwatched(manager.path(), absl::ZeroDuration());
  unwatched.Alive();
  EXPECT_EQ(manager.Next(), "");
  EXPECT_EQ(unwatched.watchdog_interval(), absl::InfiniteDuration());
  const ServiceNotify too_long(std::string(300, 'x'), absl::Seconds(1));
  too_long.Ready("no room for this name");
}

TEST(ServiceNotify, TakesTheEnvironmentForItself) {
  Manager manager;
  setenv("NOTIFY_SOCKET", manager.path().c_str(), 1);
  setenv("WATCHDOG_USEC", "4000000", 1);
  setenv("WATCHDOG_PID", absl::StrCat(getpid()).c_str(), 1);
  const ServiceNotify notify = ServiceNotify::FromEnvironment();
  EXPECT_EQ(getenv("NOTIFY_SOCKET"), nullptr);
  EXPECT_EQ(getenv("WATCHDOG_USEC"), nullptr);
  EXPECT_EQ(notify.watchdog_interval(), absl::Seconds(2));
  notify.Alive();
  EXPECT_EQ(manager.Next(), "WATCHDOG=1");

  setenv("WATCHDOG_USEC", "4000000", 1);
  setenv("WATCHDOG_PID", "1", 1);  // another process is watched
  EXPECT_EQ(ServiceNotify::FromEnvironment().watchdog_interval(), absl::InfiniteDuration());
}

}  // namespace
}  // namespace ll
