// Client side of a connection to the coordinator. Thread-safe functions.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

struct ChannelConfig {
  // "HOST:PORT" each. Several are a coordinator and its standbys: the channel is connected to all
  // and calls go to the one that says it serves (gRPC's health service), so they follow the leader
  // by themselves. With TLS they must share a certificate name: the first one's.
  std::vector<std::string> addresses;
  // PEM files. `ca_file` switches TLS on; a client certificate needs both of the others.
  std::string ca_file, cert_file, key_file;
  // Connections use what the files hold when they are made; for programs that stay.
  bool watch_files = false;
  // Sent with every call as "authorization: Bearer TOKEN"; empty: none.
  std::string token;
};

// Splits "HOST:PORT[,HOST:PORT…]". Errors (InvalidArgument, field "coordinator"): empty, no port,
// port out of range.
absl::StatusOr<std::vector<std::string>> ParseAddresses(absl::string_view text);

// Splits "HOST:PORT" or "[V6]:PORT"; the host comes back without brackets. `field` names the flag
// in the error.
struct HostPort {
  std::string host;
  int port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(absl::string_view text, absl::string_view field);

// 127.0.0.0/8, ::1 or "localhost".
bool IsLoopbackHost(absl::string_view host);

// A lazily connecting channel: keepalive (with several addresses a host that is gone is noticed
// within 8 s, so that its standby is asked instead), at most 64 MiB an answer, and transparent
// retries of UNAVAILABLE with backoff for the unary services (Jobs, Admin). Errors: bad address;
// unreadable PEM file; a token that would travel unencrypted to a host other than this one, or
// cannot travel at all.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ChannelConfig& config);

// gRPC tells a whole chain ("failed to connect to all addresses; last error: …: Connection
// refused"); its last link is what a person can act on.
absl::string_view LastCause(absl::string_view message);
// What to do where a connection was not made for such a cause; `ca_flags` names the flags that give
// an authority. Empty: it is no matter of TLS.
std::string TlsHint(absl::string_view cause, const ChannelConfig& config,
                    absl::string_view ca_flags);

}  // namespace ll
