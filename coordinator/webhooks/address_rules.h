// Which addresses a webhook may be sent to. A URL is an operator's, what its name resolves to is
// whoever's who answers for it: so the address is judged, at the moment of the connection, and not
// the name.
#pragma once

#include <sys/socket.h>

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace ll {

// Refuses everything but public unicast addresses: loopback, private, shared, link-local (with the
// clouds' metadata service), multicast, documentation, reserved ones, and IPv6 forms that hide an
// IPv4 address. Thread-safe once built.
class AddressRules {
 public:
  // Lets "10.1.0.0/16", "fd00::/8" or one address pass. InvalidArgument: neither.
  absl::Status Allow(const std::string& range);
  void AllowLoopback() { loopback_ = true; }
  bool loopback() const { return loopback_; }

  // OK, or why not, with the address. Only AF_INET and AF_INET6 may pass.
  absl::Status Check(const sockaddr* address) const;
  static bool IsLoopback(const sockaddr* address);

 private:
  struct Range {
    unsigned char bytes[16];  // an IPv4 address in its mapped form
    int bits = 128;
  };
  std::vector<Range> allowed_;
  bool loopback_ = false;
};

}  // namespace ll
