#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "worker/trainer/comm/c10d_store.h"

namespace ll {
namespace {

struct Socket {
  int fd;
  uint16_t port;
};

// Listens on a free port of `host` alone. c10d itself would bind every interface, and it has no
// authentication.
absl::StatusOr<Socket> ListenOn(const std::string& host) {
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
  return Socket{fd, static_cast<uint16_t>(port)};
}

c10d::TCPStoreOptions StoreOptions(const CommOptions& options, uint16_t port) {
  c10d::TCPStoreOptions store_options;
  store_options.port = port;
  store_options.waitWorkers = false;
  store_options.timeout =
      std::chrono::milliseconds(absl::ToInt64Milliseconds(options.rendezvous_timeout));
  return store_options;
}

absl::StatusOr<std::unique_ptr<RendezvousStore>> OpenStore(
    const CommOptions& options, const std::string& host,
    const c10d::TCPStoreOptions& store_options) {
  c10::intrusive_ptr<c10d::Store> store;
  LL_RETURN_IF_ERROR(
      C10dTry(absl::StrCat("rendezvous: store at ", host, ":", store_options.port), [&] {
        auto tcp = c10::make_intrusive<c10d::TCPStore>(host, store_options);
        store = c10::make_intrusive<c10d::PrefixStore>(options.nonce, std::move(tcp));
      }));
  return std::make_unique<C10dStore>(std::move(store));
}

}  // namespace

absl::StatusOr<std::unique_ptr<RendezvousStore>> RendezvousStore::Listen(const CommOptions& options,
                                                                         std::string* address) {
  LL_ASSIGN_OR_RETURN(const Socket socket, ListenOn(options.host));
  c10d::TCPStoreOptions store_options = StoreOptions(options, socket.port);
  store_options.isServer = true;
  store_options.masterListenFd = socket.fd;
  *address = absl::StrCat(options.host, ":", socket.port);
  return OpenStore(options, options.host, store_options);
}

absl::StatusOr<std::unique_ptr<RendezvousStore>> RendezvousStore::Connect(
    const CommOptions& options, const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port < 1 || port > 65535) {
    return MakeFieldError({"rendezvous", "host:port", address});
  }
  return OpenStore(options, address.substr(0, colon),
                   StoreOptions(options, static_cast<uint16_t>(port)));
}

}  // namespace ll
