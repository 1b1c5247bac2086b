// ll-scaler: flags, one Scaler, pages, and a round after the other until a signal. Exit codes: 0
// asked to end, 1 an error on this host, 2 usage.
#include <signal.h>

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/daemon.h"
#include "base/field_error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "rpc/daemon_metrics.h"
#include "rpc/http_server.h"
#include "rpc/named_file.h"
#include "rpc/pki.h"
#include "rpc/secret_file.h"
#include "rpc/spdlog_sink.h"
#include "scaler/options.h"
#include "scaler/scaler.h"

namespace ll {
namespace {

int Fail(const absl::Status& status, int code) {
  const std::string hint = ErrorHint(status), message(status.message());
  const bool add = !hint.empty() && !absl::StrContains(message, hint);
  std::fprintf(stderr, "ll-scaler: %s%s%s\n", message.c_str(), add ? "; " : "",
               add ? hint.c_str() : "");
  return code;
}

std::map<std::string, HttpServer::Page> PagesOf(Scaler& scaler, const ScalerOptions& options) {
  const DaemonSubjects subjects{.certificates = {{"tls_cert", options.channel.cert_file},
                                                 {"tls_ca", options.channel.ca_file}}};
  const auto state = [](bool good) {
    return good ? HttpAnswer{.body = "ok\n"} : HttpAnswer{.status = 503, .body = "not now\n"};
  };
  std::map<std::string, HttpServer::Page> pages;
  pages["/healthz"] = [&scaler, state] { return state(scaler.alive()); };
  pages["/readyz"] = [&scaler, state] { return state(scaler.ready()); };
  pages["/metrics"] = MetricsPage(
      {{std::shared_ptr<void>(), &scaler.registry()}, std::make_shared<DaemonMetrics>(subjects)});
  return pages;
}

// A process that has begun goes on with what it has, and takes the successor from the file.
absl::Status CheckCertificates(const ChannelConfig& channel, absl::Time now) {
  LL_RETURN_IF_ERROR(
      CheckNotEnded(channel.cert_file, "tls-cert", now,
                    "get another one (ll-coordinator pki issue), or mend this host's clock"));
  return CheckNotEnded(channel.ca_file, "tls-ca", now,
                       "give the authority of today's coordinator, or mend this host's clock");
}

// What the first round would stumble over. Files are read again later, for they are replaced.
absl::Status CheckFiles(const ScalerOptions& options) {
  LL_RETURN_IF_ERROR(MakeChannel(options.channel).status());
  if (!options.token_file.empty()) LL_RETURN_IF_ERROR(ReadBearerToken(options.token_file).status());
  const StatefulSetAddress& set = options.stateful_set;
  if (!absl::StartsWith(set.server, "https://")) return absl::OkStatus();
  constexpr absl::string_view kFix =
      "mount the service account, or name its folder: --service-account";
  LL_RETURN_IF_ERROR(ReadNamedFile(set.token_file, "service-account", kFix).status());
  return ReadNamedFile(set.ca_file, "service-account", kFix).status();
}

int Main(int argc, char** argv) {
  std::optional<int> exit_code;
  const absl::StatusOr<ScalerOptions> options = ParseScalerOptions(argc, argv, exit_code);
  if (exit_code) return *exit_code;
  if (!options.ok()) return Fail(options.status(), 2);
  if (const absl::Status good = CheckCertificates(options->channel, RealClock().Now()); !good.ok())
    return Fail(good, 1);
  if (const absl::Status good = CheckFiles(*options); !good.ok())
    return Fail(good, absl::IsInvalidArgument(good) || absl::IsFailedPrecondition(good) ? 2 : 1);
  const sigset_t signals = BeginDaemon();
  InstallSpdlogSink("ll-scaler");
  if (options->verbose) SetLogLevel(LogLevel::kDebug);

  const StatefulSetAddress& set = options->stateful_set;
  Scaler scaler(options->limits, set,
                ScalingCoordinator(options->channel, options->token_file, set.name), RealClock(),
                CurlTransport());
  auto http = HttpServer::Start(options->http, PagesOf(scaler, *options));
  if (!http.ok()) return Fail(http.status(), 1);
  std::printf("ll-scaler: statefulset=%s/%s api_server=%s http=%s\n", set.name_space.c_str(),
              set.name.c_str(), set.server.c_str(), (*http)->address().c_str());
  std::fflush(stdout);
  while (true) {
    const timespec wait = absl::ToTimespec(scaler.Round(options->poll));
    if (const int number = sigtimedwait(&signals, nullptr, &wait); number > 0) {
      LL_LOG(kInfo) << "signal " << number << ": workers stay as they are";
      return 0;
    }
  }
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) { return ll::Main(argc, argv); }
