#include "rpc/server.h"

#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace ll {
namespace {
constexpr int kMaxRequestBytes = 4 << 20;
constexpr int kMaxStreamsPerConnection = 256;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kKeepaliveMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
constexpr int kMinClientPingMs = 5'000;
}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const ServerTls& tls) {
  if (tls.cert_file.empty() != tls.key_file.empty()) {
    return MakeFieldError({"tls-cert", "a certificate and its key together", "only one of them",
                           "give both --tls-cert and --tls-key"});
  }
  if (tls.cert_file.empty()) {
    if (!tls.client_ca_file.empty()) {
      return MakeFieldError({"tls-client-ca", "a server certificate beside it", "none",
                             "give --tls-cert and --tls-key too"});
    }
    return grpc::InsecureServerCredentials();
  }
  // The certificate is asked for but not demanded of everyone: users come with tokens, agents with
  // certificates. Which service wants which is decided per call.
  grpc::SslServerCredentialsOptions ssl(tls.client_ca_file.empty()
                                            ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                            : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  grpc::SslServerCredentialsOptions::PemKeyCertPair pair;
  LL_ASSIGN_OR_RETURN(pair.cert_chain, ReadFile(tls.cert_file));
  LL_ASSIGN_OR_RETURN(pair.private_key, ReadFile(tls.key_file));
  ssl.pem_key_cert_pairs.push_back(pair);
  if (!tls.client_ca_file.empty()) {
    LL_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadFile(tls.client_ca_file));
  }
  return grpc::SslServerCredentials(ssl);
}

void ApplyServerLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kMinClientPingMs);
  // A second server on the same port would silently take half of the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

}  // namespace ll
