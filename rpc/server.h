// Server side: credentials and the limits every server of this project has. Thread-safe functions.
#pragma once

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace ll {

struct ServerTls {
  std::string cert_file, key_file;  // PEM; both empty: plaintext
  std::string client_ca_file;       // client certificates are asked for and checked against it
};

// Files that are replaced are used from the next handshake on (the key first, then the
// certificate). Errors: unreadable PEM file, a key of another certificate or that everybody may
// read, only one of certificate and key, a client CA without a certificate.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const ServerTls& tls);

// Message and stream limits, keepalive on the server's side and patience with a client's.
void ApplyServerLimits(grpc::ServerBuilder& builder);

}  // namespace ll
