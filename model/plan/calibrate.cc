#include "model/plan/calibrate.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/subprocess.h"

#ifndef LL_VERSION
#define LL_VERSION "unknown"
#endif

namespace ll {
namespace {

constexpr size_t kMostOutput = 1 << 20;

std::string FileNameOf(const Calibration& c) {
  std::string name = absl::StrCat(c.device, "@", c.host);
  for (char& letter : name) {
    const bool plain = absl::ascii_isalnum(static_cast<unsigned char>(letter)) || letter == '-' ||
                       letter == '_' || letter == '.' || letter == '@';
    if (!plain) letter = '_';
  }
  return absl::StrCat(name, ".json");
}

absl::StatusOr<std::string> ReadUntilEnd(int fd, absl::Duration timeout) {
  const absl::Duration deadline = RealClock().Steady() + timeout;
  std::string out;
  char buffer[4096];
  while (out.size() < kMostOutput) {
    const absl::Duration left = deadline - RealClock().Steady();
    pollfd wait = {fd, POLLIN, 0};
    const int ready = left > absl::ZeroDuration()
                          ? poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1)
                          : 0;
    if (ready == 0) {
      return FieldStatus(absl::StatusCode::kDeadlineExceeded, "calibrate",
                         absl::StrCat("the probe took longer than ", absl::FormatDuration(timeout)),
                         "the host is too busy to be measured");
    }
    if (ready < 0 && errno == EINTR) continue;
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "cannot read from", "ll-trainer");
    if (n == 0) return out;
    out.append(buffer, static_cast<size_t>(n));
  }
  return absl::InternalError("ll-trainer probe: more output than a probe has");
}

absl::StatusOr<std::string> RunProbe(const CalibrateOptions& options) {
  std::string program = options.trainer;
  if (program.empty()) {
    std::error_code error;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
    program = (self.parent_path() / "ll-trainer").string();
  }
  if (!FileExists(program)) {
    return FieldStatus(absl::StatusCode::kNotFound, "trainer",
                       absl::StrCat("there is no ", program),
                       "--trainer PATH names the program that measures");
  }
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "cannot make a pipe to", program);
  absl::Cleanup close_read = [&] { close(ends[0]); };
  SubprocessOptions child;
  child.argv = {program,        "probe",     "--device",
                options.device, "--threads", absl::StrCat(options.threads)};
  child.inherited_fds[STDOUT_FILENO] = ends[1];
  auto started = Subprocess::Start(child);
  close(ends[1]);
  if (!started.ok()) return started.status();
  LL_ASSIGN_OR_RETURN(std::string out, ReadUntilEnd(ends[0], kProbeTimeout));
  const auto ended = started->Wait(kProbeTimeout);
  if (ended && ended->signal == 0 && ended->exit_code == 0) return out;
  return FieldStatus(absl::StatusCode::kInternal, "calibrate",
                     absl::StrCat("ll-trainer probe failed",
                                  ended ? absl::StrCat(" with exit code ", ended->exit_code) : ""),
                     "its message is above");
}

bool IsOf(const Calibration& c, const std::string& device) {
  return device == "auto" || (device == "cpu") == (c.device == "cpu");
}

// The newest that was measured on this host.
absl::StatusOr<std::optional<CalibrateResult>> Kept(const CalibrateOptions& options,
                                                    const std::string& folder) {
  std::optional<CalibrateResult> newest;
  if (!IsDirectory(folder)) return newest;
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(folder));
  for (const std::string& name : names) {
    if (!absl::EndsWith(name, ".json")) continue;
    const std::string path = absl::StrCat(folder, "/", name);
    const auto text = ReadFile(path);
    const auto found = text.ok() ? ParseCalibration(*text) : text.status();
    // One that cannot be read is measured again.
    if (!found.ok() || found->host != ThisHost() || !IsOf(*found, options.device)) continue;
    if (!newest || newest->calibration.time < found->time) newest = {*found, *text, path, ""};
  }
  return newest;
}

}  // namespace

std::string ProbeFolder(const std::function<std::string(const std::string&)>& environment) {
  const std::string cache = environment("XDG_CACHE_HOME");
  return absl::StrCat(cache.empty() ? absl::StrCat(environment("HOME"), "/.cache") : cache,
                      "/ll/probes");
}

std::string ThisHost() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

std::string ThisBuild() { return LL_VERSION; }

absl::StatusOr<std::map<std::string, Calibration>> KeptCalibrations(const std::string& folder,
                                                                    const std::string& host) {
  if (!IsDirectory(folder)) return std::map<std::string, Calibration>();
  LL_ASSIGN_OR_RETURN(auto kept, ReadCalibrations(folder));
  kept.erase("cpu");
  Calibration own;
  own.device = "cpu";
  own.host = host;
  const std::string path = absl::StrCat(folder, "/", FileNameOf(own));
  if (!FileExists(path)) return kept;
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  LL_ASSIGN_OR_RETURN(const Calibration cpu, ParseCalibration(text));
  if (cpu.host == host) kept["cpu"] = cpu;
  return kept;
}

std::string WhyStale(const Calibration& kept, const std::string& host, const std::string& build,
                     absl::Time now, absl::Duration max_age) {
  absl::Time measured;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, kept.time, &measured, &error))
    return "its time cannot be read";
  if (kept.host != host) return absl::StrCat("it was measured on ", kept.host);
  if (kept.build != build) return absl::StrCat("it is of version ", kept.build);
  if (measured > now) return "it is from the future";
  if (now - measured > max_age) {
    return absl::StrCat("it is ", absl::ToInt64Hours(now - measured) / 24, " days old");
  }
  return "";
}

absl::StatusOr<CalibrateResult> Calibrate(const CalibrateOptions& options,
                                          const std::string& folder, absl::Time now) {
  LL_ASSIGN_OR_RETURN(std::optional<CalibrateResult> kept, Kept(options, folder));
  if (options.never_now) {
    if (kept) return *kept;
    return absl::NotFoundError("not measured before, and not while ranks run");
  }
  std::string reason = "it had not been measured";
  if (options.again) {
    reason = "asked for";
  } else if (kept) {
    reason = WhyStale(kept->calibration, ThisHost(), ThisBuild(), now, options.max_age);
    if (reason.empty()) return *kept;
  }
  LL_ASSIGN_OR_RETURN(const std::string text, RunProbe(options));
  auto measured = ParseCalibration(text);
  if (!measured.ok()) return Annotate(measured.status(), "ll-trainer probe");
  LL_RETURN_IF_ERROR(MakeDirs(folder));
  CalibrateResult result{*measured, text, absl::StrCat(folder, "/", FileNameOf(*measured)), reason};
  LL_RETURN_IF_ERROR(WriteFileAtomic(result.path, text));
  return result;
}

}  // namespace ll
