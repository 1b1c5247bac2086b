#include "worker/agent/options.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <climits>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "rpc/config_file.h"
#include "rpc/named_file.h"
#include "rpc/open_page.h"
#include "rpc/pki.h"
#include "rpc/secret_file.h"
#include "worker/agent/gpu_probe.h"

namespace ll {
namespace {

constexpr absl::Duration kDriverTimeout = absl::Seconds(20);
// 580 is the first that runs programs of CUDA 13.
constexpr char kInstallDriver[] =
    "install it, release 580 or later (in a container by NVIDIA's container toolkit), or give "
    "--cpu-slots N";

struct Flags {
  std::string coordinator = "127.0.0.1:7070", http = "127.0.0.1:7072", work_dir, name, gpus,
              trainer, token_file;
  std::string tls_ca, tls_cert, tls_key, job_store, fabric_host, nvlink_domain, rack;
  int cpu_slots = 0, trainer_threads = 0, probe_days = 0;
  int64_t slot_memory = 0, shutdown_grace = 60;
  std::vector<std::string> roots;
  std::vector<std::string> trainer_read;
  std::string trainer_sandbox = "auto", trainer_user;
  bool verbose = false, http_public = false, json = false;
};

void Declare(CLI::App& app, Flags& f) {
  app.add_option("--coordinator", f.coordinator,
                 "HOST:PORT[,HOST:PORT...] of the coordinator and its standbys")
      ->capture_default_str();
  app.add_option("--http", f.http, "HOST:PORT for /metrics and /healthz; port 0 takes any free one")
      ->capture_default_str();
  app.add_flag("--http-public", f.http_public,
               "Let --http listen beyond loopback, where whoever reaches it reads it: for networks "
               "that let only Prometheus through");
  app.add_option("--work-dir", f.work_dir,
                 "Folder of this agent: its notes and, without --job-store, the jobs")
      ->required();
  app.add_option("--name", f.name,
                 "Name of this worker, unique in the cluster; default: the host's name");
  auto* gpus = app.add_option("--gpus", f.gpus,
                              "GPUs to offer: all, or indices as 0,1; default: all there are");
  app.add_option("--cpu-slots", f.cpu_slots,
                 "Offer this many CPU slots instead of GPUs; default where there are no "
                 "GPUs: 1")
      ->check(CLI::Range(1, 1024))
      ->excludes(gpus);
  app.add_option("--slot-memory", f.slot_memory,
                 "Bytes of a CPU slot; default: an equal share of the memory")
      ->check(CLI::PositiveNumber);
  app.add_option("--trainer", f.trainer,
                 "The trainer program; default: ll-trainer beside this one");
  app.add_option(
         "--trainer-sandbox", f.trainer_sandbox,
         "auto: the kernel's Landlock confines trainers to their job's files where there is "
         "one; required: no start without; off")
      ->check(CLI::IsMember({"auto", "required", "off"}))
      ->capture_default_str();
  app.add_option("--trainer-read", f.trainer_read,
                 "Folder that confined trainers may read besides (again for more)");
  app.add_option(
      "--trainer-user", f.trainer_user,
      "Account that trainers run as, of an agent that runs as root; default: the agent's");
  app.add_option("--trainer-threads", f.trainer_threads,
                 "Threads of each trainer; default: the CPUs divided by the CPU slots")
      ->check(CLI::Range(1, 4096));
  app.add_option(
         "--probe-days", f.probe_days,
         "Measure this host's slots for plans when that is longer ago than N days (`ll-trainer "
         "probe`, about 15 s before the first job; kept in WORK_DIR/probes); 0: never")
      ->check(CLI::Range(0, 3650))
      ->capture_default_str();
  app.add_option(
      "--root", f.roots,
      "NAME=DIR: jobs may read models and data beneath DIR (again for more). Required "
      "unless the coordinator is on loopback; without any, jobs may read every file that "
      "this process can");
  app.add_option("--job-store", f.job_store,
                 "Folder that all workers share and jobs write into; default: WORK_DIR/jobs, on "
                 "this host alone");
  app.add_option(
      "--fabric-host", f.fabric_host,
      "Address at which other hosts' ranks reach this host's; default: the one that routes to the "
      "coordinator");
  app.add_option(
      "--nvlink-domain", f.nvlink_domain,
      "Name of the NVLink domain that this host shares with others; gangs stay within one");
  app.add_option("--rack", f.rack, "Name of this host's rack");
  app.add_option("--token-file", f.token_file,
                 "File with the bearer token; default: $LLCTL_TOKEN, else the token of a "
                 "coordinator on this host "
                 "($LL_DATA_DIR or ~/.local/share/ll)");
  app.add_option("--tls-ca", f.tls_ca,
                 "PEM file of the CA of the coordinator's certificate; switches TLS on");
  app.add_option("--tls-cert", f.tls_cert, "PEM file of this worker's certificate");
  app.add_option("--tls-key", f.tls_key, "PEM file of that certificate's key");
  app.add_option("--shutdown-grace", f.shutdown_grace,
                 "Seconds that ranks get to write a checkpoint when this process is asked to end")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  app.add_flag("-v,--verbose", f.verbose, "Log more");
  AddConfigFile(app);
  app.add_subcommand("join", "Get a certificate by a join token; must stand first")->callback([] {
    throw CLI::ValidationError("join", "must stand before every flag");
  });
  app.add_subcommand("reexec",
                     "Ask the agent that runs in --work-dir to go on as the program that is "
                     "installed now, with the flags and the configuration of now; its ranks go on. "
                     "Waits for the outcome; exit status 1 where it refuses")
      ->fallthrough();
  app.add_subcommand("reexec-check", "What a running agent asks of its successor")
      ->group("")
      ->callback([] { throw CLI::ValidationError("reexec-check", "must stand first"); });
  auto* preflight = app.add_subcommand(
      "preflight",
      "Look whether this host is fit to join: GPUs, NCCL, trainer, disks, port, coordinator, "
      "clock, "
      "shared memory, open files. Takes the flags that ll-worker will take; exit status 1 where a "
      "check fails");
  preflight->add_flag("--json", f.json, "Print JSON instead of a table");
  preflight->fallthrough();
}

std::string HostName() {
  char buffer[256] = {};
  return gethostname(buffer, sizeof buffer - 1) == 0 ? buffer : "localhost";
}

// The local address that the kernel would use towards `address`; nothing is sent.
std::string LocalAddressTowards(const HostPort& address) {
  if (IsLoopbackHost(address.host)) return "127.0.0.1";
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  if (getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &list) != 0)
    return "127.0.0.1";
  std::string out = "127.0.0.1";
  const int fd = socket(list->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_storage local{};
  socklen_t length = sizeof local;
  char text[NI_MAXHOST];
  if (fd >= 0 && connect(fd, list->ai_addr, list->ai_addrlen) == 0 &&
      getsockname(fd, reinterpret_cast<sockaddr*>(&local), &length) == 0 &&
      getnameinfo(reinterpret_cast<sockaddr*>(&local), length, text, sizeof text, nullptr, 0,
                  NI_NUMERICHOST) == 0) {
    out = text;
  }
  if (fd >= 0) close(fd);
  freeaddrinfo(list);
  return out;
}

absl::StatusOr<std::string> ReadToken(const std::string& file) {
  if (!file.empty()) return ReadBearerToken(file);
  if (const char* token = getenv("LLCTL_TOKEN"); token != nullptr && *token != '\0')
    return std::string(token);
  const char* data_dir = getenv("LL_DATA_DIR");
  const char* home = getenv("HOME");
  const std::string dir = data_dir != nullptr
                              ? data_dir
                              : absl::StrCat(home == nullptr ? "" : home, "/.local/share/ll");
  const auto text = ReadFile(absl::StrCat(dir, "/token"));
  return text.ok() ? std::string(absl::StripAsciiWhitespace(*text)) : std::string();
}

absl::StatusOr<std::string> TrainerPath(const std::string& flag) {
  std::string path = flag;
  if (path.empty()) {
    char self[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self);
    path = (std::filesystem::path(std::string(self, std::max<ssize_t>(n, 0))).parent_path() /
            "ll-trainer")
               .string();
  }
  path = std::filesystem::absolute(path).lexically_normal().string();
  if (access(path.c_str(), X_OK) != 0 || IsDirectory(path)) {
    return MakeFieldError(
        {"trainer", "a program that can be run", path, "build ll-trainer or give --trainer PATH"},
        absl::StatusCode::kNotFound);
  }
  return path;
}

absl::Status ChooseSlots(const Flags& flags, AgentOptions& agent) {
  if (flags.cpu_slots == 0) {
    LL_ASSIGN_OR_RETURN(std::vector<v1::Slot> gpus, ProbeGpus(kDriverTimeout));
    if (!flags.gpus.empty() && gpus.empty()) {
      const bool driver = !NvidiaSmi().empty();
      return MakeFieldError(
          {"gpus", "a GPU on this host", driver ? "none that nvidia-smi lists" : "no NVIDIA driver",
           driver ? "look with nvidia-smi and dmesg, or give --cpu-slots N" : kInstallDriver},
          absl::StatusCode::kNotFound);
    }
    LL_ASSIGN_OR_RETURN(agent.slots, SelectGpus(gpus, flags.gpus.empty() ? "all" : flags.gpus));
    agent.gpu_slots = !agent.slots.empty();
  }
  if (!agent.gpu_slots) agent.slots = CpuSlots(std::max(1, flags.cpu_slots), flags.slot_memory);
  const int cpus = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  agent.trainer_threads = flags.trainer_threads;
  if (agent.trainer_threads == 0)
    agent.trainer_threads = std::max<int>(1, cpus / static_cast<int>(agent.slots.size()));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WorkerOptions> ParseWorkerOptions(int argc, char** argv,
                                                 std::optional<int>& exit_code) {
  CLI::App app("ll-worker: runs the ranks of training jobs on this host, as the coordinator orders",
               "ll-worker");
  app.set_version_flag("--version", "ll-worker " LL_VERSION);
  Flags flags;
  Declare(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    exit_code = error.get_exit_code() == 0 ? app.exit(error) : 2;
    if (*exit_code != 0) {
      std::fprintf(stderr, "%s\n", UsageLine(app, error).c_str());
    }
    return absl::InvalidArgumentError("usage");
  }
  WorkerOptions out;
  LL_RETURN_IF_ERROR(CheckOpenPage(flags.http, flags.http_public));
  out.http = flags.http;
  out.verbose = flags.verbose;
  LL_ASSIGN_OR_RETURN(out.channel.addresses, ParseAddresses(flags.coordinator));
  out.channel.ca_file = flags.tls_ca;
  out.channel.cert_file = flags.tls_cert;
  out.channel.key_file = flags.tls_key;
  out.channel.watch_files = true;
  LL_ASSIGN_OR_RETURN(out.channel.token, ReadToken(flags.token_file));
  AgentOptions& agent = out.agent;
  agent.host = HostName();
  agent.name = flags.name.empty() ? agent.host : flags.name;
  if (!IsIdentityName(agent.name)) {
    return MakeFieldError({"name", "1 to 64 letters, digits, '.', '_' or '-'",
                           OneLine(agent.name.substr(0, 80)), "give --name"});
  }
  if (absl::StartsWith(flags.job_store, "s3:")) {
    return MakeFieldError({"job-store", "a folder that all workers share", flags.job_store});
  }
  agent.work_dir = std::filesystem::absolute(flags.work_dir).lexically_normal().string();
  if (!flags.job_store.empty()) {
    agent.job_store = std::filesystem::absolute(flags.job_store).lexically_normal().string();
  }
  for (const std::string& root : flags.roots) LL_RETURN_IF_ERROR(AddRoot(root, agent.roots));
  LL_ASSIGN_OR_RETURN(HostPort first, ParseHostPort(out.channel.addresses[0], "coordinator"));
  if (agent.roots.empty() && !IsLoopbackHost(first.host)) {
    return MakeFieldError({"root", "at least one NAME=DIR, because jobs come from another host",
                           "none", "name the folders whose models and data jobs may read"});
  }
  absl::StatusOr<std::string> trainer = TrainerPath(flags.trainer);
  if (trainer.ok()) agent.trainer = *std::move(trainer);
  out.trainer_error = trainer.status();
  out.sandbox.mode = flags.trainer_sandbox == "off"        ? SandboxMode::kOff
                     : flags.trainer_sandbox == "required" ? SandboxMode::kRequired
                                                           : SandboxMode::kAuto;
  out.sandbox.trainer = agent.trainer;
  out.probe_days = flags.probe_days;
  for (const std::string& folder : flags.trainer_read) {
    if (FileExists(folder)) continue;
    return MakeFieldError({"trainer-read", "a folder that trainers may read", folder,
                           "make it, or leave --trainer-read out"},
                          absl::StatusCode::kNotFound);
  }
  out.sandbox.extra_read = flags.trainer_read;
  out.sandbox.user = flags.trainer_user;
  agent.nvlink_domain = flags.nvlink_domain;
  agent.rack = flags.rack;
  agent.fabric_host = flags.fabric_host.empty() ? LocalAddressTowards(first) : flags.fabric_host;
  agent.shutdown_grace = absl::Seconds(flags.shutdown_grace);
  out.slots_error = ChooseSlots(flags, agent);
  out.preflight = app.got_subcommand("preflight");
  out.reexec = app.got_subcommand("reexec");
  out.json = flags.json;
  if (!out.preflight && !out.reexec) {
    LL_RETURN_IF_ERROR(out.trainer_error);
    LL_RETURN_IF_ERROR(out.slots_error);
  }
  return out;
}

}  // namespace ll
