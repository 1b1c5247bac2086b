#include "rpc/server.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include "base/field_error.h"
#include "base/status_macros.h"
#include "rpc/pki.h"

namespace ll {
namespace {
// A million empty members or labels fit into it, which take some 56 MB once they are read.
constexpr int kMaxRequestBytes = 2 << 20;
constexpr int kMaxStreamsPerConnection = 256;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr size_t kMaxTransportBytes = 48 << 20;
// What is read at once, and so how many streams at most begin before the connection guard sees the
// first of them. gRPC's default are 4 MiB.
constexpr int kMaxReadBytes = 16 << 10;
constexpr int kKeepaliveMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
constexpr int kMinClientPingMs = 5'000;
constexpr unsigned kLookAtFilesSeconds = 1;
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
  LL_RETURN_IF_ERROR(CheckCertificateFiles(tls.cert_file, tls.key_file));
  if (!tls.client_ca_file.empty())
    LL_RETURN_IF_ERROR(CheckAuthorityFile(tls.client_ca_file, "tls-client-ca"));
  // New handshakes use what the files hold now; connections that stand go on. gRPC's default is
  // TLS 1.2 and later.
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          tls.key_file, tls.cert_file, tls.client_ca_file, kLookAtFilesSeconds));
  options.watch_identity_key_cert_pairs();
  if (!tls.client_ca_file.empty()) options.watch_root_certs();
  // The certificate is asked for but not demanded of everyone: users come with tokens, agents with
  // certificates. Which service wants which is decided per call.
  options.set_cert_request_type(tls.client_ca_file.empty()
                                    ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                    : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

void ApplyServerLimits(grpc::ServerBuilder& builder) {
  // What all connections hold together for messages and buffers: beyond it gRPC cancels streams
  // and closes connections. Headers that never end are not in it (docs/security.md).
  builder.SetResourceQuota(grpc::ResourceQuota("ll").Resize(kMaxTransportBytes));
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, kMaxReadBytes);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kMinClientPingMs);
  // A megabyte of gzip can hold a gigabyte: nobody here compresses, so nobody may.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  // A second server on the same port would silently take half of the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

}  // namespace ll
