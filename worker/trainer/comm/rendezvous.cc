#include <chrono>
#include <utility>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/trainer/comm/c10d_store.h"
#include "worker/trainer/comm/sockets.h"

namespace ll {
namespace {

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
  LL_ASSIGN_OR_RETURN(const ListeningSocket socket, ListenOn(options.host));
  c10d::TCPStoreOptions store_options = StoreOptions(options, socket.port);
  store_options.isServer = true;
  store_options.masterListenFd = socket.fd;
  *address = absl::StrCat(options.host, ":", socket.port);
  return OpenStore(options, options.host, store_options);
}

absl::StatusOr<std::unique_ptr<RendezvousStore>> RendezvousStore::Connect(
    const CommOptions& options, const std::string& address) {
  LL_ASSIGN_OR_RETURN(const HostPort to, ParseHostPort(address));
  return OpenStore(options, to.host, StoreOptions(options, to.port));
}

}  // namespace ll
