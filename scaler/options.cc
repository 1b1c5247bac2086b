#include "scaler/options.h"

#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "rpc/config_file.h"
#include "rpc/open_page.h"

namespace ll {
namespace {

constexpr char kAccount[] = "/var/run/secrets/kubernetes.io/serviceaccount";

struct ScalerFlags {
  std::string coordinator = "127.0.0.1:7070", http = "127.0.0.1:7073", api_server, name_space;
  std::string account = kAccount, stateful_set = "ll-worker";
  std::string token_file, tls_ca, tls_cert, tls_key;
  int least = 1, most = 0, slots = 1;
  double poll_s = 10, quiet_s = 600, manual_s = 3600;
  bool verbose = false, http_public = false;
};

void DeclareConnections(CLI::App& app, ScalerFlags& f) {
  app.add_option("--coordinator", f.coordinator,
                 "HOST:PORT[,HOST:PORT...] of the coordinator and its standbys")
      ->capture_default_str();
  app.add_option("--token-file", f.token_file,
                 "File with a token of scopes read and admin for the coordinator");
  app.add_option("--tls-ca", f.tls_ca,
                 "PEM file of the CA of the coordinator's certificate; switches TLS on");
  app.add_option("--tls-cert", f.tls_cert, "PEM file of a client certificate");
  app.add_option("--tls-key", f.tls_key, "PEM file of that certificate's key");
  app.add_option("--api-server", f.api_server,
                 "https://HOST:PORT of Kubernetes' API server; default: the one of this pod. "
                 "http:// on loopback alone, and without a token (kubectl proxy)");
  app.add_option("--service-account", f.account,
                 "Folder with token, ca.crt and namespace for the API server")
      ->capture_default_str();
  app.add_option("--namespace", f.name_space, "Of the StatefulSet; default: the service account's");
  app.add_option("--http", f.http,
                 "HOST:PORT for /metrics, /healthz and /readyz; port 0 takes any free one")
      ->capture_default_str();
  app.add_flag("--http-public", f.http_public,
               "Let --http listen beyond loopback, where whoever reaches it reads it");
}

void DeclareScaling(CLI::App& app, ScalerFlags& f) {
  app.add_option("--statefulset", f.stateful_set,
                 "Name of the workers' StatefulSet; its pods' workers are called NAME-0, NAME-1, "
                 "... (ll-worker --name)")
      ->capture_default_str();
  app.add_option("--least", f.least, "Workers that stay when nothing waits")
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
  app.add_option("--most", f.most, "Workers that there are at most")
      ->required()
      ->check(CLI::Range(1, 100'000));
  app.add_option("--slots", f.slots, "Slots of a worker, until the first has told")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--poll-seconds", f.poll_s, "How often queue and StatefulSet are looked at")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  app.add_option("--quiet-seconds", f.quiet_s,
                 "How long fewer workers must have been enough before any of them goes")
      ->check(CLI::Range(0.0, 1e7))
      ->capture_default_str();
  app.add_option("--manual-seconds", f.manual_s,
                 "How long a number of replicas that somebody else has set is left alone")
      ->check(CLI::Range(0.0, 1e7))
      ->capture_default_str();
}

// The API server as the kubelet tells it to every pod; an IPv6 address stands in brackets.
std::string ServerOfThisPod() {
  const char* host = getenv("KUBERNETES_SERVICE_HOST");
  const char* port = getenv("KUBERNETES_SERVICE_PORT");
  if (host == nullptr || port == nullptr) return "";
  const bool v6 = absl::StrContains(host, ':');
  return absl::StrCat("https://", v6 ? "[" : "", host, v6 ? "]:" : ":", port);
}

absl::StatusOr<StatefulSetAddress> AddressOf(const ScalerFlags& f) {
  StatefulSetAddress out;
  out.server = f.api_server.empty() ? ServerOfThisPod() : f.api_server;
  absl::string_view rest = out.server;
  const bool plain = absl::ConsumePrefix(&rest, "http://");
  if (!plain && !absl::ConsumePrefix(&rest, "https://")) {
    return MakeFieldError({"api-server", "https://HOST:PORT",
                           out.server.empty() ? "none, and this is no pod" : out.server});
  }
  LL_ASSIGN_OR_RETURN(const HostPort parts, ParseHostPort(rest, "api-server"));
  if (plain && !IsLoopbackHost(parts.host)) {
    return MakeFieldError(
        {"api-server", "https://, or http:// on loopback (kubectl proxy)", out.server});
  }
  out.name = f.stateful_set;
  out.name_space = f.name_space;
  out.token_file = absl::StrCat(f.account, "/token");
  out.ca_file = absl::StrCat(f.account, "/ca.crt");
  if (!out.name_space.empty()) return out;
  const auto text = ReadFile(absl::StrCat(f.account, "/namespace"));
  if (!text.ok()) {
    return MakeFieldError({"namespace", "the StatefulSet's namespace", "none",
                           "give --namespace, or --service-account"});
  }
  out.name_space = std::string(absl::StripAsciiWhitespace(*text));
  return out;
}

absl::Status CheckScalerFlags(const ScalerFlags& f) {
  if (f.least > f.most) {
    return MakeFieldError(
        {"least", absl::StrCat("at most --most, ", f.most), absl::StrCat(f.least)});
  }
  return CheckOpenPage(f.http, f.http_public);
}

}  // namespace

absl::StatusOr<ScalerOptions> ParseScalerOptions(int argc, char** argv,
                                                 std::optional<int>& exit_code) {
  CLI::App app("ll-scaler: keeps as many workers in a Kubernetes StatefulSet as the queue wants",
               "ll-scaler");
  app.set_version_flag("--version", "ll-scaler " LL_VERSION);
  ScalerFlags flags;
  DeclareScaling(app, flags);
  DeclareConnections(app, flags);
  app.add_flag("-v,--verbose", flags.verbose, "Log more");
  AddConfigFile(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    exit_code = error.get_exit_code() == 0 ? app.exit(error) : 2;
    if (*exit_code != 0) std::fprintf(stderr, "%s\n", UsageLine(app, error).c_str());
    return absl::InvalidArgumentError("usage");
  }
  LL_RETURN_IF_ERROR(CheckScalerFlags(flags));
  ScalerOptions out;
  out.limits = {flags.least, flags.most, flags.slots, absl::Seconds(flags.quiet_s),
                absl::Seconds(flags.manual_s)};
  out.poll = absl::Seconds(flags.poll_s);
  out.http = flags.http;
  out.verbose = flags.verbose;
  out.token_file = flags.token_file;
  LL_ASSIGN_OR_RETURN(out.stateful_set, AddressOf(flags));
  LL_ASSIGN_OR_RETURN(out.channel.addresses, ParseAddresses(flags.coordinator));
  out.channel.ca_file = flags.tls_ca;
  out.channel.cert_file = flags.tls_cert;
  out.channel.key_file = flags.tls_key;
  out.channel.watch_files = true;
  return out;
}

}  // namespace ll
