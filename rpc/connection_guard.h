// Hangs up connections that the ledger finds misused, whether or not their client has credentials.
#pragma once

#include <grpcpp/security/auth_metadata_processor.h>
#include <grpcpp/support/server_interceptor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace ll {

// One a server. Looks at its process's sockets every 20 ms (each second when there are a thousand)
// and at every call, so that memory grows by some tens of megabytes before a flood ends.
// Thread-safe; must live until the server is gone.
class ConnectionGuard {
 public:
  // `hung_up` hears of each, from any thread: the peer as gRPC names it.
  static std::unique_ptr<ConnectionGuard> Create(std::function<void(const std::string&)> hung_up);
  virtual ~ConnectionGuard() = default;

  // For the server's credentials, where they are not plaintext: with it a flood is seen as it is
  // read. It lets everybody pass.
  virtual std::shared_ptr<grpc::AuthMetadataProcessor> Processor() = 0;

  // For the server's builder. Does nothing for calls within the process.
  virtual std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> Factory() = 0;

  // Connections accepted at this port are guarded from now on; call it once the server listens.
  virtual void Watch(int port) = 0;
};

}  // namespace ll
