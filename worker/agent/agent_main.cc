// ll-worker: the agent of a host. Reads flags, opens the work directory, and runs one loop: wait
// for a trainer's event, a message of the coordinator, a signal or 100 ms; then act. Exit codes: 0
// asked to end, 1 an error on this host (`preflight`: a check failed), 2 usage, 3 refused by the
// coordinator (name in use, version), 6 denied. SIGUSR2: goes on as the program that is installed
// now (reexec.h).
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <optional>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/daemon.h"
#include "base/field_error.h"
#include "base/ids.h"
#include "base/leader_error.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "model/plan/calibrate.h"
#include "rpc/daemon_metrics.h"
#include "rpc/http_server.h"
#include "rpc/pki.h"
#include "rpc/service_notify.h"
#include "rpc/spdlog_sink.h"
#include "worker/agent/agent.h"
#include "worker/agent/connection.h"
#include "worker/agent/gpu_metrics.h"
#include "worker/agent/join.h"
#include "worker/agent/options.h"
#include "worker/agent/preflight.h"
#include "worker/agent/reexec.h"
#include "worker/agent/trainer_release.h"

namespace ll {
namespace {

// A name may be held for a moment by the session of an agent that has just died.
constexpr absl::Duration kNamePatience = absl::Seconds(15);
constexpr int kTickMs = 100;

int PrintError(const absl::Status& status, int code) {
  const std::string hint = ErrorHint(status), message(status.message());
  const bool add = !hint.empty() && message.find(hint) == std::string::npos;
  std::fprintf(stderr, "ll-worker: %s%s%s\n", message.c_str(), add ? "; " : "",
               add ? hint.c_str() : "");
  return code;
}

// Why an agent that was never welcomed should give up; 0 to go on trying.
int GiveUpCode(const absl::Status& status, absl::Duration tried) {
  switch (status.code()) {
    case absl::StatusCode::kAlreadyExists:
      return tried > kNamePatience ? 3 : 0;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kUnimplemented:
      return 3;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return 6;
    default:
      return 0;
  }
}

// What plans are made with on this host, not measured anew while ranks run on it. A host that
// cannot be measured works all the same.
std::string MeasureSlots(const WorkerOptions& options, bool ranks_run) {
  if (options.probe_days == 0) return "";
  // It takes a while in which nobody reads the signals, and nothing runs yet that would have to be
  // ended in order: they end the process, and the kernel the probe with it.
  sigset_t ending, before;
  sigemptyset(&ending);
  for (const int signal : {SIGTERM, SIGINT}) sigaddset(&ending, signal);
  if (!ranks_run) pthread_sigmask(SIG_UNBLOCK, &ending, &before);
  const absl::Cleanup restore = [&] {
    if (!ranks_run) pthread_sigmask(SIG_SETMASK, &before, nullptr);
  };
  CalibrateOptions calibrate;
  calibrate.trainer = options.agent.trainer;
  calibrate.device = options.agent.slots[0].kind() == "cpu" ? "cpu" : "cuda";
  calibrate.threads = options.agent.trainer_threads;
  calibrate.max_age = absl::Hours(24 * options.probe_days);
  calibrate.never_now = ranks_run;
  const auto measured =
      Calibrate(calibrate, absl::StrCat(options.agent.work_dir, "/probes"), RealClock().Now());
  if (!measured.ok()) {
    LL_LOG(kWarning) << "slots not measured: " << measured.status().message();
    return "";
  }
  LL_LOG(kInfo) << "slots measured on " << measured->calibration.time
                << (measured->reason.empty() ? "" : ", now, because ") << measured->reason;
  return measured->text;
}

// An agent that begins with an ended certificate would be turned away for ever. Status 1: the
// service manager tries again, and finds the new one. One that goes on with living ranks does so
// without contact instead.
absl::Status CheckCertificates(const ChannelConfig& channel, absl::Time now) {
  LL_RETURN_IF_ERROR(CheckNotEnded(
      channel.cert_file, "tls-cert", now,
      "get another one (ll-worker join, or ll-coordinator pki issue), or mend this host's clock"));
  return CheckNotEnded(channel.ca_file, "tls-ca", now,
                       "give the authority of today's coordinator, or mend this host's clock");
}

// Checkpoints and events of another release may be read wrongly: told, and left to the operator,
// for the trainer may be replaced at any time.
void CheckTrainerRelease(const std::string& trainer) {
  const std::optional<std::string> found = TrainerRelease(trainer);
  if (!found || *found == LL_VERSION) return;
  LL_LOG(kError) << "trainer: expected release " << LL_VERSION << ", which is this agent's, found "
                 << *found << ", which is " << trainer
                 << "'s; install both from one release, or give --trainer PATH";
}

// Logs the first of a row of equal failures after which another session is tried, and every
// hundredth.
class FailureLog {
 public:
  explicit FailureLog(const ChannelConfig& channel) : channel_(channel) {}
  void Note(const absl::Status& status) {
    // Not ToString: the order of its payloads changes.
    const std::string now =
        absl::StrCat(absl::StatusCodeToString(status.code()), ": ", std::string(status.message()));
    if (now != last_) count_ = 0;
    last_ = now;
    if (count_++ % 100 != 0) return;
    const std::string hint = HintFor(status);
    LL_LOG(kWarning) << "no session with the coordinator at "
                     << absl::StrJoin(channel_.addresses, ",") << ": " << last_
                     << "; tried again and again" << (hint.empty() ? "" : ": ") << hint;
  }

 private:
  // Empty where the coordinator has answered: its own words say what to do.
  std::string HintFor(const absl::Status& status) const {
    const bool refused = absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status);
    if (refused && !channel_.token.empty()) return "restart this agent once its token is good";
    const bool answered = !ErrorHint(status).empty() || !ErrorLeader(status).empty();
    if (!absl::IsUnavailable(status) || answered) return "";
    const std::string tls = TlsHint(status.message(), channel_, "--tls-ca");
    return tls.empty() ? "does it run there (--coordinator)?" : tls;
  }

  const ChannelConfig channel_;
  std::string last_;
  int count_ = 0;
};

void WaitForWork(const Agent& agent, int signal_fd, int wake_fd) {
  std::vector<pollfd> wait = {{signal_fd, POLLIN, 0}, {wake_fd, POLLIN, 0}};
  for (int fd : agent.PollFds()) wait.push_back({fd, POLLIN, 0});
  poll(wait.data(), wait.size(), kTickMs);
  uint64_t ignored;
  (void)!read(wake_fd, &ignored, sizeof ignored);
}

// What the service manager hears: whether there is contact, and that the loop turns.
class Herald {
 public:
  explicit Herald(const ServiceNotify& notify) : notify_(notify) {}
  void Tell(const Agent& agent, absl::Duration now) {
    if (const bool welcomed = agent.welcomed(); told_ != welcomed) {
      told_ = welcomed;
      notify_.Status(welcomed ? "in contact with the coordinator"
                              : "no contact with the coordinator; running ranks go on");
    }
    if (now < alive_at_) return;
    notify_.Alive();
    alive_at_ = now + notify_.watchdog_interval();
  }

 private:
  const ServiceNotify& notify_;
  std::optional<bool> told_;
  absl::Duration alive_at_ = absl::ZeroDuration();
};

// Going on as another program: who asked, what came of it.
class InPlaceUpgrade {
 public:
  InPlaceUpgrade(Reexec& reexec, Agent& agent, Connection& connection, const ServiceNotify& notify,
                 std::string work_dir)
      : reexec_(reexec),
        agent_(agent),
        connection_(connection),
        notify_(notify),
        work_dir_(std::move(work_dir)) {}

  // This process runs; `reexecs`: programs before it in its place.
  void Started(int64_t reexecs) {
    const auto before = ReadReexecRecord(work_dir_);
    record_ = {.pid = getpid(), .reexecs = reexecs, .version = LL_VERSION};
    if (reexecs > 0 && before.ok()) record_.attempts = before->attempts + 1;
    Note(reexecs == 0 ? "started"
                      : absl::StrCat("goes on as version ", LL_VERSION, ", the ", reexecs,
                                     ". time; its ranks were not touched"));
  }
  void Ask() {
    absl::Status status = agent_.shutting_down()
                              ? absl::FailedPreconditionError("this agent is about to end")
                              : reexec_.Begin(agent_.Handover(), RealClock().Steady());
    if (absl::IsAlreadyExists(status)) return;  // its outcome answers both
    if (!status.ok()) return Refused(status);
    LL_LOG(kInfo) << "asked to go on as " << reexec_.program() << ", which is checked first";
  }
  // Does not return where the program was executed.
  void Tick() {
    std::optional<absl::Status> checked = reexec_.Poll(RealClock().Steady());
    if (!checked) return;
    if (checked->ok() && agent_.shutting_down()) {
      checked = absl::FailedPreconditionError("this agent is about to end");
    }
    if (checked->ok()) {
      LL_LOG(kInfo) << "goes on as " << reexec_.program();
      connection_.Flush(absl::Milliseconds(200));
      checked = reexec_.Execute(agent_.Handover(), notify_.Environment());
    }
    Refused(*checked);
  }

 private:
  void Refused(const absl::Status& status) {
    const std::string what = absl::StrCat("goes on as it is: ", std::string(status.message()));
    LL_LOG(kError) << what;
    notify_.Status(what);
    ++record_.attempts;
    Note(what);
  }
  void Note(const std::string& outcome) {
    record_.outcome = outcome;
    const absl::Status status = WriteReexecRecord(work_dir_, record_);
    if (status.ok()) return;
    LL_LOG(kWarning) << status.message();
  }

  Reexec& reexec_;
  Agent& agent_;
  Connection& connection_;
  const ServiceNotify& notify_;
  const std::string work_dir_;
  ReexecRecord record_;
};

int Loop(Agent& agent, Connection& connection, AgentMetrics& metrics, const ServiceNotify& notify,
         InPlaceUpgrade& upgrade, FailureLog failures, int signal_fd, int wake_fd) {
  Herald herald(notify);
  const absl::Duration began = RealClock().Steady();
  while (!agent.ShutdownDone()) {
    WaitForWork(agent, signal_fd, wake_fd);
    signalfd_siginfo info;
    const bool signalled = read(signal_fd, &info, sizeof info) == sizeof info;
    if (signalled && info.ssi_signo == SIGUSR2) {
      upgrade.Ask();
    } else if (signalled) {
      LL_LOG(kInfo) << "signal " << info.ssi_signo
                    << (agent.shutting_down()
                            ? ", again: ranks are killed"
                            : ": ranks checkpoint and end; again: they are killed");
      notify.Stopping();
      agent.BeginShutdown();
    }
    for (const SessionEvent& event : connection.Take()) {
      switch (event.kind) {
        case SessionEvent::kOpened:
          metrics.CountSession();
          agent.OnOpened();
          break;
        case SessionEvent::kMessage:
          agent.OnMessage(event.message);
          break;
        case SessionEvent::kClosed:
          agent.OnClosed();
          if (const int code = agent.ever_welcomed()
                                   ? 0
                                   : GiveUpCode(event.status, RealClock().Steady() - began);
              code != 0) {
            return PrintError(event.status, code);
          }
          failures.Note(event.status);
      }
    }
    agent.Tick();
    upgrade.Tick();
    herald.Tell(agent, RealClock().Steady());
  }
  return 0;
}

// Null where there are no GPUs to read, or nothing to read them with.
std::shared_ptr<const GpuMetrics> GpuMetricsOf(const AgentOptions& options) {
  if (!options.gpu_slots) return nullptr;
  std::vector<int> indices;
  for (const v1::Slot& slot : options.slots) indices.push_back(slot.index());
  auto reader = OpenNvml(kNvmlLibrary, indices);
  if (!reader.ok()) {
    LL_LOG(kWarning) << reader.status().message();
    return nullptr;
  }
  return std::make_shared<GpuMetrics>(*std::move(reader));
}

std::vector<v1::SlotLoad> SlotLoads(const GpuMetrics& gpus) {
  std::vector<v1::SlotLoad> loads;
  for (const GpuSample& sample : gpus.Newest()) {
    v1::SlotLoad& load = loads.emplace_back();
    load.set_slot(sample.index);
    if (sample.utilization.has_value()) load.set_utilization(*sample.utilization);
    load.set_memory_used_bytes(static_cast<int64_t>(sample.memory_used_bytes.value_or(0)));
    load.set_power_watts(sample.power_watts.value_or(0));
    load.set_temperature_celsius(sample.temperature_celsius.value_or(0));
  }
  return loads;
}

// `metrics` outlives the pages. `gpus` may be null.
std::map<std::string, HttpServer::Page> PagesOf(AgentMetrics& metrics, const WorkerOptions& options,
                                                std::shared_ptr<const GpuMetrics> gpus) {
  const DaemonSubjects subjects{
      .disks = {{"work_dir", options.agent.work_dir}, {"job_store", options.agent.job_store}},
      .certificates = {{"tls_cert", options.channel.cert_file},
                       {"tls_ca", options.channel.ca_file}}};
  std::vector<std::shared_ptr<const prometheus::Collectable>> sources = {
      {std::shared_ptr<void>(), &metrics.registry()}, std::make_shared<DaemonMetrics>(subjects)};
  if (gpus != nullptr) sources.push_back(std::move(gpus));
  std::map<std::string, HttpServer::Page> pages;
  pages["/healthz"] = [] { return HttpAnswer{.body = "ok\n"}; };
  pages["/metrics"] = MetricsPage(std::move(sources));
  return pages;
}

// The pages at the address of before, where this is an agent that goes on: the port was free a
// moment ago. Ranks are not to end because it is taken, so another one of the host does too.
absl::StatusOr<std::unique_ptr<HttpServer>> StartHttp(const WorkerOptions& options,
                                                      AgentMetrics& metrics,
                                                      std::shared_ptr<const GpuMetrics> gpus,
                                                      const v1::AgentState* state) {
  const bool any_port = absl::EndsWith(options.http, ":0");
  if (state == nullptr) return HttpServer::Start(options.http, PagesOf(metrics, options, gpus));
  absl::StatusOr<std::unique_ptr<HttpServer>> out;
  for (int i = 0; i < 20; ++i) {
    out = HttpServer::Start(any_port ? state->http_address() : options.http,
                            PagesOf(metrics, options, gpus));
    if (!absl::IsUnavailable(out.status())) return out;
    RealClock().Sleep(absl::Milliseconds(100));
  }
  LL_LOG(kError) << out.status().message() << "; pages are served at another port";
  const std::string host = options.http.substr(0, options.http.rfind(':'));
  return HttpServer::Start(absl::StrCat(host, ":0"), PagesOf(metrics, options, gpus));
}

int AskForReexec(const WorkerOptions& options) {
  const auto outcome =
      RequestReexec(options.agent.work_dir, Reexec::kCheckDeadline + absl::Seconds(20));
  if (!outcome.ok()) return PrintError(outcome.status(), 1);
  std::printf("ll-worker: %s\n", outcome->c_str());
  return 0;
}

int Main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "join") == 0) return RunJoinCommand(argc - 1, argv + 1);
  if (argc > 1 && std::strcmp(argv[1], "reexec-check") == 0)
    return RunReexecCheck(argc - 1, argv + 1);
  const auto handed = TakeAgentState();
  if (!handed.ok()) return PrintError(handed.status(), 1);
  const v1::AgentState* state = handed->has_value() ? &**handed : nullptr;
  Reexec reexec({argv, argv + argc});
  std::optional<int> exit_code;
  absl::StatusOr<WorkerOptions> options = ParseWorkerOptions(argc, argv, exit_code);
  if (exit_code) return *exit_code;
  if (!options.ok()) return PrintError(options.status(), 2);
  if (options->preflight) {
    const std::vector<PreflightCheck> checks = RunPreflight(*options);
    std::fputs((options->json ? PreflightJson(checks) : PreflightTable(checks)).c_str(), stdout);
    if (std::fflush(stdout) != 0)
      return PrintError(absl::UnavailableError("stdout: cannot be written"), 1);
    return Passed(checks) ? 0 : 1;
  }
  if (options->reexec) return AskForReexec(*options);
  const sigset_t signals = BeginDaemon({SIGUSR2});  // the last asks for a reexec
  const ServiceNotify notify = ServiceNotify::FromEnvironment();
  const int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  InstallSpdlogSink("ll-worker");
  if (options->verbose) SetLogLevel(LogLevel::kDebug);

  AgentOptions& agent_options = options->agent;
  if (state == nullptr) {
    const absl::Status good = CheckCertificates(options->channel, RealClock().Now());
    if (!good.ok()) return PrintError(good, absl::IsFailedPrecondition(good) ? 1 : 2);
  }
  const std::string job_store = agent_options.job_store.empty()
                                    ? absl::StrCat(agent_options.work_dir, "/jobs")
                                    : agent_options.job_store;
  auto sandbox = TrainerSandbox::Make(options->sandbox, agent_options.roots, job_store);
  if (!sandbox.ok()) return PrintError(sandbox.status(), 2);
  LL_LOG(kInfo) << (*sandbox)->description();
  CheckTrainerRelease(agent_options.trainer);
  agent_options.sandbox = *sandbox;

  agent_options.calibration = MeasureSlots(*options, /*ranks_run=*/state != nullptr);
  AgentMetrics metrics(LL_VERSION);
  const std::shared_ptr<const GpuMetrics> gpus = GpuMetricsOf(agent_options);
  if (gpus != nullptr) agent_options.slot_loads = [gpus] { return SlotLoads(*gpus); };
  auto http = StartHttp(*options, metrics, gpus, state);
  if (!http.ok()) return PrintError(http.status(), 1);
  options->agent.http_address = (*http)->address();
  auto channel = MakeChannel(options->channel);
  if (!channel.ok()) return PrintError(channel.status(), 2);
  Connection connection(*channel, [wake_fd] {
    const uint64_t one = 1;
    (void)!write(wake_fd, &one, sizeof one);
  });
  Agent agent(options->agent, RealClock(), SystemRandom(), connection, metrics);
  const absl::Status opened = state == nullptr ? agent.Open() : agent.Adopt(*state);
  if (!opened.ok()) return PrintError(opened, 1);
  InPlaceUpgrade upgrade(reexec, agent, connection, notify, options->agent.work_dir);
  upgrade.Started(state == nullptr ? 0 : state->reexecs());
  std::printf("ll-worker: name=%s slots=%zu kind=%s http=%s work_dir=%s\n",
              options->agent.name.c_str(), options->agent.slots.size(),
              options->agent.slots[0].kind().c_str(), options->agent.http_address.c_str(),
              options->agent.work_dir.c_str());
  std::fflush(stdout);
  notify.Ready(state == nullptr ? "started" : "goes on as another program");
  connection.Start();
  const int code = Loop(agent, connection, metrics, notify, upgrade, FailureLog(options->channel),
                        signal_fd, wake_fd);
  connection.Stop(absl::Seconds(1));
  return code;
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) { return ll::Main(argc, argv); }
