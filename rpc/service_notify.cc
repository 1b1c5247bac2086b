#include "rpc/service_notify.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace ll {
namespace {

std::string TakeVariable(const char* name) {
  const char* value = getenv(name);
  std::string out = value == nullptr ? "" : value;
  unsetenv(name);
  return out;
}

// A newline would end the field and begin another one.
std::string OneLine(absl::string_view text) {
  std::string out(text);
  std::replace(out.begin(), out.end(), '\n', ' ');
  return out;
}

}  // namespace

ServiceNotify ServiceNotify::FromEnvironment() {
  const std::string socket = TakeVariable("NOTIFY_SOCKET"), usec = TakeVariable("WATCHDOG_USEC"),
                    pid = TakeVariable("WATCHDOG_PID");
  int64_t microseconds = 0, watched = 0;
  if (!absl::SimpleAtoi(usec, &microseconds) || microseconds < 0) microseconds = 0;
  if (absl::SimpleAtoi(pid, &watched) && watched != getpid()) microseconds = 0;
  return ServiceNotify(socket, absl::Microseconds(microseconds));
}

void ServiceNotify::Ready(absl::string_view status) const {
  Send(absl::StrCat("READY=1\nSTATUS=", OneLine(status)));
}

void ServiceNotify::Status(absl::string_view status) const {
  Send(absl::StrCat("STATUS=", OneLine(status)));
}

void ServiceNotify::Stopping() const { Send("STOPPING=1"); }

void ServiceNotify::Alive() const {
  if (watchdog_ > absl::ZeroDuration()) Send("WATCHDOG=1");
}

absl::Duration ServiceNotify::watchdog_interval() const {
  return watchdog_ > absl::ZeroDuration() ? watchdog_ / 2 : absl::InfiniteDuration();
}

std::vector<std::string> ServiceNotify::Environment() const {
  std::vector<std::string> out;
  if (!socket_.empty()) out.push_back(absl::StrCat("NOTIFY_SOCKET=", socket_));
  if (watchdog_ > absl::ZeroDuration()) {
    out.push_back(absl::StrCat("WATCHDOG_USEC=", absl::ToInt64Microseconds(watchdog_)));
    out.push_back(absl::StrCat("WATCHDOG_PID=", getpid()));
  }
  return out;
}

void ServiceNotify::Send(const std::string& message) const {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_.empty() || socket_.size() >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_[0] == '@') address.sun_path[0] = '\0';  // an abstract name
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  (void)!sendto(fd, message.data(), message.size(), MSG_NOSIGNAL,
                reinterpret_cast<const sockaddr*>(&address), length);
  close(fd);
}

}  // namespace ll
