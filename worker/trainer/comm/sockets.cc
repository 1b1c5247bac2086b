#include "worker/trainer/comm/sockets.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/status_macros.h"

namespace ll {

absl::StatusOr<ListeningSocket> ListenOn(const std::string& host) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return MakeFieldError({"--listen-host", "an address of this host", host, gai_strerror(error)});
  }
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool bound =
      fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 1024) == 0;
  const int error = errno;
  freeaddrinfo(found);
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  char service[16];
  if (!bound || getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&address), size, nullptr, 0, service, sizeof service,
                  NI_NUMERICSERV) != 0) {
    if (fd >= 0) close(fd);
    return absl::UnavailableError(
        absl::StrCat("rendezvous: cannot listen on ", host, ": ", std::strerror(error)));
  }
  int port = 0;
  LL_CHECK(absl::SimpleAtoi(service, &port));
  return ListeningSocket{fd, static_cast<uint16_t>(port)};
}

absl::StatusOr<HostPort> ParseHostPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port < 1 || port > 65535) {
    return MakeFieldError({"rendezvous", "host:port", address});
  }
  return HostPort{address.substr(0, colon), static_cast<uint16_t>(port)};
}

absl::StatusOr<int> DialTo(const std::string& address) {
  LL_ASSIGN_OR_RETURN(const HostPort to, ParseHostPort(address));
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(to.port);
  if (const int error = getaddrinfo(to.host.c_str(), service.c_str(), &hints, &found); error != 0) {
    return absl::UnavailableError(absl::StrCat("rendezvous: ", to.host, ": ", gai_strerror(error)));
  }
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool connected = fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0;
  const int error = errno;
  freeaddrinfo(found);
  if (!connected) {
    if (fd >= 0) close(fd);
    return absl::UnavailableError(
        absl::StrCat("rendezvous: cannot connect to ", address, ": ", std::strerror(error)));
  }
  return fd;
}

}  // namespace ll
