// TCP sockets by host name, for rank-to-rank connections.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace ll {

struct ListeningSocket {
  int fd = -1;  // the caller's
  uint16_t port = 0;
};

// Listens on a free port of `host` alone. c10d itself would bind every interface, and it has no
// authentication. Errors: InvalidArgument for a host that is not this one, Unavailable.
absl::StatusOr<ListeningSocket> ListenOn(const std::string& host);

// Connects to "host:port"; the descriptor is the caller's. Errors: InvalidArgument for a malformed
// address, Unavailable.
absl::StatusOr<int> DialTo(const std::string& address);

// "host:port" in parts.
struct HostPort {
  std::string host;
  uint16_t port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);

}  // namespace ll
