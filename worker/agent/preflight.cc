#include "worker/agent/preflight.h"

#include <grpcpp/grpcpp.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/format.h"
#include "proto/admin.grpc.pb.h"
#include "rpc/http_server.h"
#include "rpc/status.h"
#include "worker/agent/capture.h"
#include "worker/agent/gpu_probe.h"

namespace ll {
namespace {

using Check = PreflightCheck;
constexpr absl::Duration kProgramTimeout = absl::Seconds(60);
constexpr absl::Duration kCallTimeout = absl::Seconds(10);
constexpr int64_t kLeastFreeBytes = 10'000'000'000;  // a few checkpoints and their logs
constexpr absl::Duration kSlowSync = absl::Milliseconds(100);
constexpr int kSyncs = 11;  // the median of so many
constexpr absl::Duration kClockTolerance = absl::Seconds(5);
constexpr int64_t kLeastSharedMemory = 1'000'000'000;
constexpr int64_t kLeastOpenFiles = 1024;
constexpr int kHotCelsius = 90;

absl::string_view ResultName(Check::Result result) {
  switch (result) {
    case Check::kOk:
      return "ok";
    case Check::kWarning:
      return "warning";
    case Check::kFailed:
      return "failed";
    case Check::kNotMeasured:
      return "not measured";
  }
  return "";
}

Check Failed(absl::string_view name, absl::string_view found, absl::string_view fix) {
  return {std::string(name), Check::kFailed, OneLine(found), std::string(fix)};
}

// The median of making 4 KiB durable in `file`.
absl::StatusOr<absl::Duration> SyncTime(const std::string& file) {
  std::vector<absl::Duration> times;
  for (int i = 0; i < kSyncs; ++i) {
    const absl::Duration began = RealClock().Steady();
    const absl::Status written = WriteFileAtomic(file, std::string(4096, 'x'));
    if (!written.ok()) return written;
    times.push_back(RealClock().Steady() - began);
  }
  std::nth_element(times.begin(), times.begin() + kSyncs / 2, times.end());
  return times[kSyncs / 2];
}

std::string FindOnPath(absl::string_view program) {
  const char* path = getenv("PATH");
  for (absl::string_view folder : absl::StrSplit(path == nullptr ? "" : path, ':')) {
    std::string file = absl::StrCat(folder, "/", program);
    if (access(file.c_str(), X_OK) == 0) return file;
  }
  return "";
}

std::vector<Check> CheckGpus(const WorkerOptions& options) {
  if (!options.slots_error.ok()) {
    return {Failed("gpus", options.slots_error.message(), ErrorHint(options.slots_error))};
  }
  if (!options.agent.gpu_slots) {
    return {{"gpus", Check::kNotMeasured,
             absl::StrCat("none offered; ", options.agent.slots.size(), " CPU slots"), ""}};
  }
  std::vector<std::string> indices;
  for (const v1::Slot& slot : options.agent.slots) indices.push_back(absl::StrCat(slot.index()));
  const auto run =
      CaptureOutput({NvidiaSmi(), absl::StrCat("--id=", absl::StrJoin(indices, ",")),
                     "--query-gpu=index,temperature.gpu,ecc.errors.uncorrected.volatile.total,"
                     "remapped_rows.pending,clocks_throttle_reasons.hw_slowdown",
                     "--format=csv,noheader,nounits"},
                    kProgramTimeout);
  if (!run.ok() || run->exit_code != 0) {
    return {Failed("gpus", run.ok() ? run->output : std::string(run.status().message()),
                   "repair the NVIDIA driver")};
  }
  return JudgeGpuHealth(run->output);
}

Check CheckNccl(const WorkerOptions& options) {
  Check check{"nccl bandwidth", Check::kNotMeasured, "needs two GPUs", ""};
  const int gpus = options.agent.gpu_slots ? static_cast<int>(options.agent.slots.size()) : 0;
  if (gpus < 2) return check;
  const std::string program = FindOnPath("all_reduce_perf");
  if (program.empty()) {
    check.found = "nccl-tests' all_reduce_perf is not on PATH";
    check.fix = "install nccl-tests to have it measured";
    return check;
  }
  const auto run =
      CaptureOutput({program, "-b", "64M", "-e", "64M", "-g", absl::StrCat(gpus)}, kProgramTimeout);
  if (!run.ok() || run->exit_code != 0) {
    return Failed(check.name, run.ok() ? run->output : std::string(run.status().message()),
                  "run all_reduce_perf with NCCL_DEBUG=INFO; settings: docs/multi-host.md");
  }
  return JudgeNcclBandwidth(run->output);
}

Check ClockCheck(const std::string& sent_ms, absl::Time began, absl::Time ended) {
  Check check{"clock", Check::kNotMeasured, "the coordinator did not say its time", ""};
  int64_t ms;
  if (!absl::SimpleAtoi(sent_ms, &ms)) return check;
  // Right at most by half of the round trip.
  const absl::Duration skew = absl::FromUnixMillis(ms) - (began + (ended - began) / 2);
  check.result = absl::AbsDuration(skew) > kClockTolerance ? Check::kFailed : Check::kOk;
  check.found = absl::StrFormat("the coordinator's is %.3f s %s",
                                absl::ToDoubleSeconds(absl::AbsDuration(skew)),
                                skew < absl::ZeroDuration() ? "behind" : "ahead");
  if (check.result == Check::kFailed) check.fix = "run an NTP client (chrony) on both hosts";
  return check;
}

}  // namespace

Check CheckFolder(absl::string_view name, const std::string& folder, int64_t least_bytes) {
  if (const absl::Status made = MakeDirs(folder); !made.ok()) {
    return Failed(name, made.message(), "make the folder and give it to the agent's user");
  }
  struct statvfs info;
  if (statvfs(folder.c_str(), &info) != 0) {
    return Failed(name, ErrnoStatus(errno, "cannot look at", folder).message(), "repair the disk");
  }
  const int64_t free = static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
  const std::string file = absl::StrCat(folder, "/.preflight-", getpid());
  const auto sync = SyncTime(file);
  unlink(file.c_str());
  if (!sync.ok()) {
    return Failed(name, sync.status().message(), "free space on this disk, or give another folder");
  }
  Check check{std::string(name), Check::kOk,
              absl::StrFormat("%s: %s free, fsync %.1f ms", folder, HumanBytes(free),
                              absl::ToDoubleMilliseconds(*sync)),
              ""};
  if (free < least_bytes) {
    check.result = Check::kFailed;
    check.fix = absl::StrCat("free space: at least ", HumanBytes(least_bytes));
  } else if (*sync > kSlowSync) {
    check.result = Check::kWarning;
    check.fix = "the agent makes every report durable: a local SSD is better";
  }
  return check;
}

Check CheckListen(absl::string_view name, const std::string& address) {
  const auto server = HttpServer::Start(address, {});
  if (server.ok()) return {std::string(name), Check::kOk, address + " is free", ""};
  return Failed(name, server.status().message(),
                "end what listens there (ss -ltnp), or give another address with --http");
}

Check CheckTrainer(const absl::Status& found, const std::string& program,
                   absl::string_view version) {
  constexpr absl::string_view kName = "trainer";
  if (!found.ok()) return Failed(kName, found.message(), ErrorHint(found));
  const auto run = CaptureOutput({program, "version"}, kProgramTimeout);
  if (!run.ok() || run->exit_code != 0) {
    return Failed(kName,
                  run.ok() ? absl::StrCat(program, " version: exit status ", run->exit_code)
                           : std::string(run.status().message()),
                  absl::StrCat("run it by hand; missing libraries: ldd ", program));
  }
  const std::string line(absl::StripAsciiWhitespace(run->output));
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
  if (words.size() < 2 || words[0] != "ll-trainer" || words[1] != version) {
    return Failed(kName, absl::StrCat("expected ll-trainer ", version, ", found ", line),
                  "install agent and trainer of one release");
  }
  return {std::string(kName), Check::kOk, line, ""};
}

std::vector<Check> CheckCoordinator(const ChannelConfig& config, absl::Duration timeout) {
  const std::string where = absl::StrJoin(config.addresses, ",");
  const auto channel = MakeChannel(config);
  if (!channel.ok()) {
    return {Failed("coordinator", channel.status().message(), ErrorHint(channel.status()))};
  }
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
  v1::VersionResponse answer;
  const absl::Time began = absl::Now();
  const grpc::Status status =
      v1::Admin::NewStub(*channel)->Version(&context, v1::VersionRequest(), &answer);
  const absl::Time ended = absl::Now();
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto time = trailers.find("ll-time-ms");
  const std::string sent =
      time == trailers.end() ? "" : std::string(time->second.data(), time->second.size());
  std::vector<Check> out;
  // An agent's token may not ask for the version: being refused so, it was known.
  if (status.ok() || status.error_code() == grpc::StatusCode::PERMISSION_DENIED) {
    out.push_back({"coordinator", Check::kOk,
                   absl::StrCat(where, " answers",
                                status.ok() ? absl::StrCat(", version ", answer.version()) : ""),
                   ""});
  } else {
    const bool token = status.error_code() == grpc::StatusCode::UNAUTHENTICATED;
    out.push_back(Failed("coordinator", absl::StrCat(where, ": ", status.error_message()),
                         token ? "give --token-file a token with the scope worker"
                               : "is it running, is the port open, does --tls-ca match?"));
  }
  out.push_back(ClockCheck(sent, began, ended));
  return out;
}

Check CheckSharedMemory(const std::string& folder, bool gpu_slots, int slots) {
  struct statvfs info;
  if (statvfs(folder.c_str(), &info) != 0) {
    return Failed("shared memory", ErrnoStatus(errno, "cannot look at", folder).message(),
                  "mount a tmpfs there");
  }
  const int64_t bytes = static_cast<int64_t>(info.f_blocks) * static_cast<int64_t>(info.f_frsize);
  Check check{"shared memory", Check::kOk, absl::StrCat(folder, ": ", HumanBytes(bytes)), ""};
  if (gpu_slots && slots > 1 && bytes < kLeastSharedMemory) {
    check.result = Check::kFailed;
    check.fix = absl::StrCat("NCCL wants ", HumanBytes(kLeastSharedMemory),
                             " there: --shm-size in Docker, an emptyDir of medium Memory in "
                             "Kubernetes");
  }
  return check;
}

Check CheckOpenFiles(int64_t limit) {
  Check check{"open files", Check::kOk, limit < 0 ? std::string("unlimited") : HumanCount(limit),
              ""};
  if (limit >= 0 && limit < kLeastOpenFiles) {
    check.result = Check::kFailed;
    check.fix = absl::StrCat("at least ", HumanCount(kLeastOpenFiles),
                             ": LimitNOFILE= in the unit, or ulimit -n");
  }
  return check;
}

std::vector<Check> JudgeGpuHealth(absl::string_view text) {
  std::vector<Check> out;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
    std::vector<std::string> parts;
    for (absl::string_view part : absl::StrSplit(line, ',')) {
      parts.emplace_back(absl::StripAsciiWhitespace(part));
    }
    if (parts.size() != 5) {
      out.push_back(Failed("gpus", absl::StrCat("cannot read nvidia-smi: ", line),
                           "report the driver's version"));
      continue;
    }
    Check check{absl::StrCat("gpu ", parts[0]), Check::kOk,
                absl::StrCat(parts[1], " C, uncorrected ECC errors ", parts[2],
                             ", row remapping pending ", parts[3], ", slowed down ", parts[4]),
                ""};
    int64_t errors = 0, celsius = 0;
    // "[N/A]" where the device does not know: no error.
    if (absl::SimpleAtoi(parts[2], &errors) && errors > 0) {
      check.result = Check::kFailed;
      check.fix = "reset the GPU; if errors come back, have it replaced";
    } else if (parts[3] == "Yes") {
      check.result = Check::kFailed;
      check.fix = "reset the GPU, so that the broken rows are replaced";
    } else if (parts[4] == "Active" ||
               (absl::SimpleAtoi(parts[1], &celsius) && celsius >= kHotCelsius)) {
      check.result = Check::kWarning;
      check.fix = "look at cooling and power: it runs slower, and its gangs with it";
    }
    out.push_back(std::move(check));
  }
  if (out.empty()) out.push_back(Failed("gpus", "nvidia-smi names none", "repair the driver"));
  return out;
}

Check JudgeNcclBandwidth(absl::string_view text) {
  constexpr absl::string_view kMark = "Avg bus bandwidth";
  const size_t at = text.find(kMark);
  double gigabytes = 0;
  if (at != absl::string_view::npos) {
    absl::string_view rest = text.substr(at + kMark.size());
    rest = rest.substr(0, rest.find('\n'));
    absl::ConsumePrefix(&(rest = absl::StripAsciiWhitespace(rest)), ":");
    if (absl::SimpleAtod(absl::StripAsciiWhitespace(rest), &gigabytes) && gigabytes > 0) {
      return {"nccl bandwidth", Check::kOk, absl::StrFormat("%.1f GB/s on the bus", gigabytes), ""};
    }
  }
  return Failed("nccl bandwidth", "all_reduce_perf printed no average",
                "run all_reduce_perf by hand with NCCL_DEBUG=INFO");
}

std::vector<Check> RunPreflight(const WorkerOptions& options) {
  std::vector<Check> out = CheckGpus(options);
  out.push_back(CheckNccl(options));
  out.push_back(CheckTrainer(options.trainer_error, options.agent.trainer, LL_VERSION));
  out.push_back(CheckFolder("work dir", options.agent.work_dir, kLeastFreeBytes));
  if (!options.agent.job_store.empty()) {
    out.push_back(CheckFolder("job store", options.agent.job_store, kLeastFreeBytes));
  }
  out.push_back(CheckListen("metrics port", options.http));
  for (Check& check : CheckCoordinator(options.channel, kCallTimeout)) {
    out.push_back(std::move(check));
  }
  out.push_back(CheckSharedMemory("/dev/shm", options.agent.gpu_slots,
                                  static_cast<int>(options.agent.slots.size())));
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  out.push_back(
      CheckOpenFiles(files.rlim_cur == RLIM_INFINITY ? -1 : static_cast<int64_t>(files.rlim_cur)));
  return out;
}

bool Passed(const std::vector<Check>& checks) {
  return std::none_of(checks.begin(), checks.end(),
                      [](const Check& check) { return check.result == Check::kFailed; });
}

std::string PreflightTable(const std::vector<Check>& checks) {
  std::string out = absl::StrFormat("%-15s %-13s %s\n", "CHECK", "RESULT", "FOUND");
  for (const Check& check : checks) {
    absl::StrAppendFormat(&out, "%-15s %-13s %s\n", check.name, ResultName(check.result),
                          check.found);
    if (!check.fix.empty()) absl::StrAppendFormat(&out, "%-29s fix: %s\n", "", check.fix);
  }
  return out;
}

std::string PreflightJson(const std::vector<Check>& checks) {
  nlohmann::json list = nlohmann::json::array();
  for (const Check& check : checks) {
    list.push_back({{"name", check.name},
                    {"result", ResultName(check.result)},
                    {"found", check.found},
                    {"fix", check.fix}});
  }
  // Paths and what programs print need not be text.
  return nlohmann::json({{"passed", Passed(checks)}, {"checks", list}})
             .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

}  // namespace ll
