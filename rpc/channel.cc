#include "rpc/channel.h"

#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/support/channel_arguments.h>
#include <grpcpp/support/client_interceptor.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "rpc/pki.h"
#include "rpc/secret_file.h"

namespace ll {
namespace {

// Only UNAVAILABLE: the call never reached a handler or the coordinator is restarting. Submit stays
// safe because its request id makes a second delivery harmless. The worker session is not listed;
// agents reconnect by themselves.
constexpr char kRetries[] = R"("methodConfig": [{
    "name": [{"service": "ll.v1.Jobs"}, {"service": "ll.v1.Admin"}, {"service": "ll.v1.Schedules"}],
    "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"]}
  }])";
// A standby can be reached and refuses everything; its health says so before it is asked.
constexpr char kFollowTheLeader[] =
    R"("loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}, )";
constexpr int kMaxAnswerBytes = 64 << 20;
constexpr int kKeepaliveMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
// Where another can be asked. Servers allow a ping every 5 s (server.cc).
constexpr int kQuickKeepaliveMs = 6'000;
constexpr int kQuickKeepaliveTimeoutMs = 2'000;
constexpr int kConnectTimeoutMs = 5'000;
constexpr int kMaxReconnectBackoffMs = 2'000;
constexpr unsigned kLookAtFilesSeconds = 1;

// gRPC refuses call credentials on a plaintext connection, and loopback connections are plaintext;
// an interceptor works the same on both.
class BearerToken : public grpc::experimental::Interceptor {
 public:
  explicit BearerToken(const std::string& value) : value_(value) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->insert({"authorization", value_});
    }
    methods->Proceed();
  }

 private:
  const std::string& value_;
};

class BearerTokenFactory : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit BearerTokenFactory(const std::string& token) : value_(absl::StrCat("Bearer ", token)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new BearerToken(value_);
  }

 private:
  std::string value_;
};

std::shared_ptr<grpc::ChannelCredentials> WatchingCredentials(const ChannelConfig& config) {
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          config.key_file, config.cert_file, config.ca_file, kLookAtFilesSeconds));
  options.watch_root_certs();
  if (!config.cert_file.empty()) options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(
    const ChannelConfig& config) {
  if (config.cert_file.empty() != config.key_file.empty()) {
    return MakeFieldError({"tls-cert", "a certificate and its key together", "only one of them",
                           "give both --tls-cert and --tls-key"});
  }
  if (config.ca_file.empty()) {
    if (!config.cert_file.empty()) {
      return MakeFieldError(
          {"tls-ca", "the CA that signed the coordinator's certificate", "none", "give --tls-ca"});
    }
    return grpc::InsecureChannelCredentials();
  }
  if (!config.cert_file.empty())
    LL_RETURN_IF_ERROR(CheckCertificateFiles(config.cert_file, config.key_file));
  if (config.watch_files) {
    LL_RETURN_IF_ERROR(CheckAuthorityFile(config.ca_file, "tls-ca"));
    return WatchingCredentials(config);
  }
  LL_RETURN_IF_ERROR(CheckAuthorityFile(config.ca_file, "ca"));
  grpc::SslCredentialsOptions ssl;
  LL_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadFile(config.ca_file));
  if (!config.cert_file.empty()) {
    LL_ASSIGN_OR_RETURN(ssl.pem_cert_chain, ReadFile(config.cert_file));
    LL_ASSIGN_OR_RETURN(ssl.pem_private_key, ReadFile(config.key_file));
  }
  return grpc::SslCredentials(ssl);
}

struct NumericAddress {
  bool v6 = false;
  std::string host;
  int port = 0;
};

// Appends the numeric forms of `address`: its IPv4 ones, or where it has none those of IPv6.
absl::Status Resolve(const HostPort& address, std::vector<NumericAddress>* out) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (int error = getaddrinfo(address.host.c_str(), nullptr, &hints, &list); error != 0) {
    return FieldStatus(absl::StatusCode::kUnavailable, "coordinator",
                       absl::StrCat("cannot resolve ", address.host, ": ", gai_strerror(error)));
  }
  const absl::Cleanup free_list = [list] { freeaddrinfo(list); };
  for (const int family : {AF_INET, AF_INET6}) {
    const size_t before = out->size();
    for (addrinfo* a = list; a != nullptr; a = a->ai_next) {
      char text[NI_MAXHOST];
      if (a->ai_family == family && getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof(text),
                                                nullptr, 0, NI_NUMERICHOST) == 0) {
        out->push_back({family == AF_INET6, text, address.port});
      }
    }
    if (out->size() > before) break;
  }
  return absl::OkStatus();
}

bool IsNumericV4(const std::string& host) {
  in_addr ignored;
  return inet_pton(AF_INET, host.c_str(), &ignored) == 1;
}

// gRPC's target: one address is left to its resolver (which looks again after a failure); several
// become one list that its default policy tries in order.
absl::StatusOr<std::string> MakeTarget(const std::vector<HostPort>& addresses) {
  if (addresses.size() == 1 && !IsNumericV4(addresses[0].host)) {
    const bool v6 = addresses[0].host.find(':') != std::string::npos;
    if (v6) return absl::StrCat("ipv6:[", addresses[0].host, "]:", addresses[0].port);
    return absl::StrCat("dns:///", addresses[0].host, ":", addresses[0].port);
  }
  std::vector<NumericAddress> numeric;
  for (const HostPort& address : addresses) LL_RETURN_IF_ERROR(Resolve(address, &numeric));
  // A list is of one family; IPv6 has forms for the addresses of IPv4.
  const bool v6 = std::any_of(numeric.begin(), numeric.end(),
                              [](const NumericAddress& address) { return address.v6; });
  return absl::StrCat(
      v6 ? "ipv6:" : "ipv4:",
      absl::StrJoin(numeric, ",", [v6](std::string* out, const NumericAddress& address) {
        absl::StrAppend(out, v6 ? "[" : "", v6 && !address.v6 ? "::ffff:" : "", address.host,
                        v6 ? "]:" : ":", address.port);
      }));
}

}  // namespace

absl::StatusOr<HostPort> ParseHostPort(absl::string_view text, absl::string_view field) {
  const auto bad = [&] { return MakeFieldError({field, "HOST:PORT", std::string(text)}); };
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return bad();
  HostPort out;
  absl::string_view host = text.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != absl::string_view::npos) {
    return bad();  // an IPv6 address needs brackets
  }
  out.host = std::string(host);
  const absl::string_view port = text.substr(colon + 1);
  if (port.empty() || port.find_first_not_of("0123456789") != absl::string_view::npos) return bad();
  if (!absl::SimpleAtoi(port, &out.port) || out.port > 65535)
    return MakeFieldError({field, "HOST:PORT with a port up to 65535", std::string(text)});
  return out;
}

absl::StatusOr<std::vector<std::string>> ParseAddresses(absl::string_view text) {
  std::vector<std::string> out;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    LL_ASSIGN_OR_RETURN(HostPort address, ParseHostPort(part, "coordinator"));
    if (address.port == 0)
      return MakeFieldError({"coordinator", "a port from 1 to 65535", std::string(part)});
    out.push_back(std::string(part));
  }
  return out;
}

bool IsLoopbackHost(absl::string_view host) {
  if (host == "localhost" || host == "::1") return true;
  in_addr v4;
  return inet_pton(AF_INET, std::string(host).c_str(), &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ChannelConfig& config) {
  // gRPC aborts the process over metadata that HTTP/2 cannot carry.
  if (!config.token.empty()) LL_RETURN_IF_ERROR(CheckBearerToken(config.token));
  std::vector<HostPort> addresses;
  for (const std::string& text : config.addresses) {
    LL_ASSIGN_OR_RETURN(HostPort address, ParseHostPort(text, "coordinator"));
    if (!config.token.empty() && config.ca_file.empty() && !IsLoopbackHost(address.host)) {
      return FieldStatus(absl::StatusCode::kFailedPrecondition, "tls-ca",
                         absl::StrCat("a token is not sent unencrypted to ", address.host),
                         "give the coordinator's CA with --tls-ca (llctl: LLCTL_CA)");
    }
    addresses.push_back(address);
  }
  if (addresses.empty()) return MakeFieldError({"coordinator", "HOST:PORT", "nothing"});
  LL_ASSIGN_OR_RETURN(auto credentials, MakeCredentials(config));
  LL_ASSIGN_OR_RETURN(std::string target, MakeTarget(addresses));

  grpc::ChannelArguments args;
  const bool several = addresses.size() > 1;
  args.SetServiceConfigJSON(absl::StrCat("{", several ? kFollowTheLeader : "", kRetries, "}"));
  args.SetMaxReceiveMessageSize(kMaxAnswerBytes);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, several ? kQuickKeepaliveMs : kKeepaliveMs);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
              several ? kQuickKeepaliveTimeoutMs : kKeepaliveTimeoutMs);
  // Otherwise an idle connection is looked at twice and never again.
  if (several) args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  // Despite its name the time that one attempt gets; a refused one ends at once.
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxReconnectBackoffMs);
  // An HTTP proxy of the environment is for the web, not for a cluster's own traffic.
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (several) args.SetString(GRPC_ARG_DEFAULT_AUTHORITY, addresses[0].host);

  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (!config.token.empty())
    interceptors.push_back(std::make_unique<BearerTokenFactory>(config.token));
  return grpc::experimental::CreateCustomChannelWithInterceptors(target, credentials, args,
                                                                 std::move(interceptors));
}

absl::string_view LastCause(absl::string_view message) {
  const size_t colon = message.rfind(": ");
  return colon == absl::string_view::npos ? message : message.substr(colon + 2);
}

std::string TlsHint(absl::string_view cause, const ChannelConfig& config,
                    absl::string_view ca_flags) {
  const auto says = [cause](absl::string_view text) { return absl::StrContains(cause, text); };
  if (says("certificate verify failed")) {
    return absl::StrCat("it answers, but its certificate has ended or is not of the authority in ",
                        config.ca_file, ": give that coordinator's with ", ca_flags);
  }
  if (says("not in peer certificate")) {
    return "it answers, but its certificate is another name's: use that name, or ll-coordinator "
           "pki issue --server with this one";
  }
  if (config.ca_file.empty() && (says("Socket closed") || says("Connection reset")))
    return absl::StrCat("does it want TLS? Give its authority with ", ca_flags);
  if (!config.ca_file.empty() && (says("wrong version number") || says("WRONG_VERSION_NUMBER")))
    return absl::StrCat("it speaks without TLS: leave out ", ca_flags);
  return "";
}

}  // namespace ll
