// ll-coordinator: flags, one Coordinator, and waiting for a signal.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/daemon.h"
#include "base/field_error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/backup_command.h"
#include "coordinator/coordinator.h"
#include "coordinator/options.h"
#include "coordinator/pki_command.h"
#include "rpc/pki.h"
#include "rpc/service_notify.h"
#include "rpc/spdlog_sink.h"

namespace {

constexpr unsigned kStopDeadlineSeconds = 10;

// Exit codes: 1 it could not start, 2 wrong usage.
int Fail(const absl::Status& status) {
  std::fprintf(stderr, "ll-coordinator: %s\n", std::string(status.message()).c_str());
  const bool usage = status.code() == absl::StatusCode::kInvalidArgument ||
                     status.code() == absl::StatusCode::kFailedPrecondition;
  return usage && !ll::ErrorField(status).empty() ? 2 : 1;
}

ll::LogLevel LevelOf(const std::string& name) {
  if (name == "debug") return ll::LogLevel::kDebug;
  if (name == "warning") return ll::LogLevel::kWarning;
  return name == "error" ? ll::LogLevel::kError : ll::LogLevel::kInfo;
}

// A process that has begun goes on with a certificate that ends, and takes its successor from the
// file; one that begins with an ended one would only turn everybody away. Status 1: the service
// manager tries again, and finds the new one.
absl::Status CheckCertificates(const ll::CoordinatorOptions& options, absl::Time now) {
  LL_RETURN_IF_ERROR(ll::CheckNotEnded(
      options.tls_cert, "tls-cert", now,
      "issue another one (ll-coordinator pki issue --server HOST,...), or mend this host's clock"));
  return ll::CheckNotEnded(options.tls_client_ca, "tls-client-ca", now,
                           "give the authority of today's workers, or mend this host's clock");
}

// Waits for a signal; meanwhile the service manager hears that the decision loop still turns.
int WaitForSignal(const sigset_t& signals, ll::Coordinator& coordinator,
                  const ll::ServiceNotify& notify) {
  const timespec wait = absl::ToTimespec(std::min(notify.watchdog_interval(), absl::Hours(1)));
  while (true) {
    const int number = sigtimedwait(&signals, nullptr, &wait);
    if (number > 0) return number;
    coordinator.Probe([&notify] { notify.Alive(); });
  }
}

}  // namespace

namespace {

// What this program does besides serving; each has flags of its own.
struct Subcommand {
  const char* name;
  int (*run)(int argc, char** argv);
};
constexpr Subcommand kSubcommands[] = {
    {"audit", ll::RunAuditCommand},
    {"pki", ll::RunPkiCommand},
};

}  // namespace

int main(int argc, char** argv) {
  // The distribution's Abseil keeps the order of all locks ever held, under one lock of its own, at
  // a cost of some percent; the tests, which run with it, are who is to hear of a cycle.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  if (const std::optional<int> code = ll::RunBackupCommand(argc, argv)) return *code;
  for (const Subcommand& command : kSubcommands) {
    if (argc > 1 && std::strcmp(argv[1], command.name) == 0) return command.run(argc - 1, argv + 1);
  }
  bool exit_now = false;
  int exit_code = 0;
  const ll::CoordinatorOptions options =
      ll::ParseCoordinatorFlags(argc, argv, &exit_now, &exit_code);
  if (exit_now) return exit_code;

  const sigset_t signals = ll::BeginDaemon();
  const ll::ServiceNotify notify = ll::ServiceNotify::FromEnvironment();
  ll::SetLogLevel(LevelOf(options.log_level));
  ll::InstallSpdlogSink("ll-coordinator");
  if (const absl::Status good = CheckCertificates(options, ll::RealClock().Now()); !good.ok()) {
    const int code = Fail(good);
    return absl::IsFailedPrecondition(good) ? 1 : code;
  }
  auto coordinator = ll::Coordinator::Start(options, ll::RealClock());
  if (!coordinator.ok()) return Fail(coordinator.status());
  std::printf("ll-coordinator: serving grpc=%s http=%s data_dir=%s\n",
              (*coordinator)->grpc_address().c_str(), (*coordinator)->http_address().c_str(),
              options.data_dir.c_str());
  std::fflush(stdout);

  notify.Ready(absl::StrCat("serving ", (*coordinator)->grpc_address()));
  const int signal_number = WaitForSignal(signals, **coordinator, notify);
  LL_LOG(kInfo) << "signal " << signal_number << ": stopping";
  notify.Stopping();
  alarm(kStopDeadlineSeconds);  // a stop that hangs is ended by SIGALRM; everything acknowledged is
                                // on disk
  coordinator->reset();
  return 0;
}
