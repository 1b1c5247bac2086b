// Tells the service manager how a daemon is: systemd's datagram protocol (sd_notify(3)), without
// its library.
//
// A process that no manager asked for news (no $NOTIFY_SOCKET) sends nothing.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ll {

// Thread-safe. Nothing is ever waited for: a message that cannot be sent at once is lost.
class ServiceNotify {
 public:
  // Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and removes them from the environment, so
  // that no child process speaks in this one's name. Call before threads start.
  static ServiceNotify FromEnvironment();

  // A socket's path, "@name" for an abstract one, empty for none; `watchdog` zero for none.
  ServiceNotify(std::string socket, absl::Duration watchdog)
      : socket_(std::move(socket)), watchdog_(watchdog) {}

  // Serving; `status` is one line for `systemctl status`.
  void Ready(absl::string_view status) const;
  void Status(absl::string_view status) const;
  void Stopping() const;
  // Call at least every watchdog_interval() while the process does its work.
  void Alive() const;
  // Half of what the manager waits; InfiniteDuration when it does not watch.
  absl::Duration watchdog_interval() const;
  // What FromEnvironment took, as "NAME=VALUE", for the program that this process executes in its
  // own place.
  std::vector<std::string> Environment() const;

 private:
  void Send(const std::string& message) const;

  std::string socket_;
  absl::Duration watchdog_;
};

}  // namespace ll
