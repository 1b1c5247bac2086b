#include "worker/agent/reexec.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "rpc/channel.h"
#include "worker/agent/options.h"
#include "worker/agent/process_marker.h"

extern char** environ;

namespace ll {
namespace {

// More than a check has to say, and more than a state can be: orders are at most 2 MiB, slots 1024.
constexpr off_t kMostCheckOutput = 64 << 10;
constexpr off_t kMostState = off_t{4} << 30;
constexpr char kRecordName[] = "/reexec.json";

struct HeldFd {
  explicit HeldFd(int fd = -1) : value(fd) {}
  HeldFd(const HeldFd&) = delete;
  HeldFd& operator=(const HeldFd&) = delete;
  ~HeldFd() {
    if (value >= 0) close(value);
  }
  int Release() { return std::exchange(value, -1); }
  int value;
};

int MemoryFile(const char* name) { return memfd_create(name, MFD_CLOEXEC); }

absl::StatusOr<std::string> ReadWhole(int fd, off_t most) {
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "cannot look at", "a descriptor");
  if (info.st_size > most) return absl::ResourceExhaustedError("too long");
  std::string out(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return ErrnoStatus(n < 0 ? errno : EIO, "cannot read", "a descriptor");
    done += static_cast<size_t>(n);
  }
  return out;
}

absl::Status WriteState(const v1::AgentState& state, HeldFd& out) {
  out.value = MemoryFile("ll-agent-state");
  if (out.value < 0) return ErrnoStatus(errno, "cannot make", "a file in memory");
  const std::string bytes = state.SerializeAsString();
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = write(out.value, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return ErrnoStatus(n < 0 ? errno : EIO, "cannot write", "the agent's state");
    done += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::AgentState> ReadState(int fd) {
  LL_ASSIGN_OR_RETURN(std::string bytes, ReadWhole(fd, kMostState));
  v1::AgentState state;
  if (!state.ParseFromString(bytes)) return absl::DataLossError("the agent's state cannot be read");
  return state;
}

std::string SelfPath() {
  char self[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self);
  return std::string(self, static_cast<size_t>(std::max<ssize_t>(n, 0)));
}

bool SameFile(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

std::vector<int> KeptDescriptors(const v1::AgentState& state) {
  std::vector<int> out = {state.lock_fd()};
  for (const v1::KeptGang& gang : state.gangs()) {
    for (const v1::KeptRank& rank : gang.ranks()) {
      if (!rank.has_process()) continue;
      if (rank.process().events_fd() >= 0) out.push_back(rank.process().events_fd());
      out.push_back(rank.process().control_fd());
    }
  }
  return out;
}

absl::Status SetCloseOnExec(int fd, bool on) {
  if (fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "cannot hand over descriptor", absl::StrCat(fd));
}

// Libraries may have opened some without it.
void CloseOthersOnExec() {
  constexpr unsigned kCloexec = 4;  // CLOSE_RANGE_CLOEXEC, Linux 5.11
  if (syscall(SYS_close_range, 3u, ~0u, kCloexec) == 0) return;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ignored)) {
    int fd;
    if (absl::SimpleAtoi(entry.path().filename().string(), &fd) && fd > 2)
      fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
}

std::vector<std::string> EnvironmentWith(const std::vector<std::string>& added) {
  std::set<std::string> names;
  for (const std::string& entry : added) names.insert(entry.substr(0, entry.find('=')));
  std::vector<std::string> out = added;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string entry = *e;
    if (names.count(entry.substr(0, entry.find('='))) == 0) out.push_back(entry);
  }
  return out;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

absl::StatusOr<std::optional<v1::AgentState>> TakeAgentState() {
  const char* value = getenv(kAgentStateVariable);
  if (value == nullptr) return std::nullopt;
  int number = -1;
  const bool valid = absl::SimpleAtoi(value, &number) && number > 2;
  unsetenv(kAgentStateVariable);
  if (!valid) {
    return MakeFieldError({kAgentStateVariable, "a descriptor", "something else", "unset it"});
  }
  const HeldFd fd(number);
  LL_ASSIGN_OR_RETURN(v1::AgentState state, ReadState(number));
  return state;
}

Reexec::Reexec(std::vector<std::string> argv) : argv_(std::move(argv)) {
  // argv[0] names what will stand there after an upgrade; /proc/self/exe the file that runs.
  const bool path = !argv_.empty() && absl::StrContains(argv_[0], '/');
  program_ = path ? std::filesystem::absolute(argv_[0]).lexically_normal().string() : SelfPath();
}

absl::Status Reexec::Begin(const v1::AgentState& state, absl::Duration now) {
  if (check_) return absl::AlreadyExistsError("a check is under way");
  struct stat program;
  if (stat(program_.c_str(), &program) != 0) return ErrnoStatus(errno, "cannot look at", program_);
  HeldFd in, out(MemoryFile("ll-check-out")), err(MemoryFile("ll-check-err"));
  if (out.value < 0 || err.value < 0) return ErrnoStatus(errno, "cannot make", "a file in memory");
  LL_RETURN_IF_ERROR(WriteState(state, in));
  SubprocessOptions options;
  options.argv = {program_, "reexec-check"};
  options.argv.insert(options.argv.end(), argv_.begin() + 1, argv_.end());
  options.environment[kAgentStateVariable] = "3";
  options.inherited_fds = {{1, out.value}, {2, err.value}, {3, in.value}};
  LL_ASSIGN_OR_RETURN(Subprocess process, Subprocess::Start(options));
  check_.emplace(
      Check{std::move(process), out.Release(), err.Release(), now + kCheckDeadline, program});
  return absl::OkStatus();
}

absl::Status Reexec::Judge(const Check& check, const ExitStatus& exit) const {
  std::string said = ReadWhole(check.err_fd, kMostCheckOutput).value_or("");
  absl::StripAsciiWhitespace(&said);
  const auto answer = ParseJsonObject(ReadWhole(check.out_fd, kMostCheckOutput).value_or(""));
  const bool known = answer.ok() && answer->contains("program") &&
                     (*answer)["program"] == "ll-worker" && answer->contains("state_formats") &&
                     (*answer)["state_formats"].is_array();
  if (!known) {
    return absl::FailedPreconditionError(absl::StrCat(
        program_, " does not say which states it reads (",
        exit.signal != 0 ? absl::StrCat("signal ", exit.signal)
                         : absl::StrCat("exit status ", exit.exit_code),
        said.empty() ? "" : ": ", said, "): it is no ll-worker that can go on from this one"));
  }
  bool reads = false;
  std::vector<std::string> formats;
  for (const auto& format : (*answer)["state_formats"]) {
    reads = reads || format == kAgentStateFormat;
    formats.push_back(JsonExcerpt(format));
  }
  if (!reads) {
    return absl::FailedPreconditionError(
        absl::StrCat(program_, " reads states of format ", absl::StrJoin(formats, ", "),
                     " and this agent writes ", kAgentStateFormat));
  }
  if (exit.signal == 0 && exit.exit_code == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      program_, " cannot go on from this agent: ",
      said.empty() ? absl::StrCat("exit status ", exit.exit_code, ", signal ", exit.signal)
                   : said));
}

std::optional<absl::Status> Reexec::Poll(absl::Duration now) {
  if (!check_) return std::nullopt;
  std::optional<absl::Status> out;
  if (const auto exit = check_->process.Poll()) {
    out = Judge(*check_, *exit);
    checked_ = check_->program;
  } else if (now >= check_->deadline) {
    out = absl::DeadlineExceededError(absl::StrCat(program_, " did not end its check within ",
                                                   absl::FormatDuration(kCheckDeadline)));
  }
  if (out) {
    close(check_->out_fd);
    close(check_->err_fd);
    check_.reset();  // kills what runs
  }
  return out;
}

absl::Status Reexec::Execute(const v1::AgentState& state,
                             const std::vector<std::string>& environment) {
  struct stat program;
  if (stat(program_.c_str(), &program) != 0 || !SameFile(program, checked_)) {
    return absl::AbortedError(
        absl::StrCat(program_, " was replaced while it was being checked; ask again"));
  }
  v1::AgentState next = state;
  next.set_reexecs(state.reexecs() + 1);
  HeldFd memory;
  LL_RETURN_IF_ERROR(WriteState(next, memory));
  std::vector<std::string> argv = argv_, added = environment;
  added.push_back(absl::StrCat(kAgentStateVariable, "=", memory.value));
  std::vector<std::string> env = EnvironmentWith(added);
  std::vector<char*> argv_pointers = Pointers(argv), env_pointers = Pointers(env);
  std::vector<int> kept = KeptDescriptors(next);
  kept.push_back(memory.value);
  CloseOthersOnExec();
  absl::Status status;
  for (const int fd : kept) status.Update(SetCloseOnExec(fd, false));
  if (status.ok()) {
    execve(program_.c_str(), argv_pointers.data(), env_pointers.data());
    status = ErrnoStatus(errno, "cannot execute", program_);
  }
  for (const int fd : kept) SetCloseOnExec(fd, true).IgnoreError();
  return status;
}

int RunReexecCheck(int argc, char** argv) {
  const nlohmann::json answer = {
      {"program", "ll-worker"}, {"version", LL_VERSION}, {"state_formats", {kAgentStateFormat}}};
  std::printf("%s\n", answer.dump().c_str());
  std::fflush(stdout);
  const auto check = [&]() -> absl::Status {
    LL_ASSIGN_OR_RETURN(std::optional<v1::AgentState> state, TakeAgentState());
    if (!state) return absl::InvalidArgumentError("no state was given");
    std::optional<int> exit_code;
    auto options = ParseWorkerOptions(argc, argv, exit_code);
    if (exit_code) return absl::InvalidArgumentError("the flags of the running agent are unknown");
    LL_RETURN_IF_ERROR(options.status());
    LL_RETURN_IF_ERROR(CheckAgentState(*state, options->agent));
    // What would end the start; the descriptors and processes are not this child's to look at.
    const std::string& store = state->job_store();
    LL_RETURN_IF_ERROR(
        TrainerSandbox::Make(options->sandbox, options->agent.roots, store).status());
    return MakeChannel(options->channel).status();
  };
  const absl::Status status = check();
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}

// ---- asking for it

absl::Status WriteReexecRecord(const std::string& work_dir, const ReexecRecord& record) {
  const nlohmann::ordered_json json = {{"pid", record.pid},
                                       {"attempts", record.attempts},
                                       {"reexecs", record.reexecs},
                                       {"version", record.version},
                                       {"outcome", record.outcome}};
  return WriteFileAtomic(
      work_dir + kRecordName,
      json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

absl::StatusOr<ReexecRecord> ReadReexecRecord(const std::string& work_dir) {
  LL_ASSIGN_OR_RETURN(std::string text, ReadFile(work_dir + kRecordName));
  const auto parsed = ParseJsonObject(text, {.max_depth = 4, .max_values = 100});
  const nlohmann::json json = parsed.value_or(nlohmann::json::object());
  if (!json.value("pid", nlohmann::json()).is_number_integer() ||
      !json.value("attempts", nlohmann::json()).is_number_integer() ||
      !json.value("reexecs", nlohmann::json()).is_number_integer() ||
      !json.value("outcome", nlohmann::json()).is_string()) {
    return MakeFieldError({work_dir + kRecordName, "an agent's notes", "something else"});
  }
  ReexecRecord out;
  out.pid = json["pid"].get<pid_t>();
  out.attempts = json["attempts"].get<int64_t>();
  out.reexecs = json["reexecs"].get<int64_t>();
  out.outcome = json["outcome"].get<std::string>();
  return out;
}

namespace {

bool IsHeld(const std::string& work_dir) {
  const HeldFd fd(open((work_dir + "/lock").c_str(), O_RDWR | O_CLOEXEC));
  return fd.value >= 0 && flock(fd.value, LOCK_EX | LOCK_NB) != 0;
}

}  // namespace

absl::StatusOr<std::string> RequestReexec(const std::string& work_dir, absl::Duration timeout) {
  if (!IsHeld(work_dir)) {
    return FieldStatus(absl::StatusCode::kNotFound, "work-dir",
                       absl::StrCat("no agent runs in ", work_dir), "start it");
  }
  const auto before = ReadReexecRecord(work_dir);
  const HeldFd agent(before.ok() && before->pid > 0 ? PidfdOpen(before->pid) : -1);
  // One of a release before this was in it would be ended by the signal.
  if (agent.value < 0) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "work-dir",
                       absl::StrCat("the agent in ", work_dir,
                                    " does not know how to execute another program in its place"),
                       "restart it");
  }
  if (syscall(SYS_pidfd_send_signal, agent.value, SIGUSR2, nullptr, 0) != 0)
    return ErrnoStatus(errno, "cannot signal", absl::StrCat("the agent, process ", before->pid));
  const absl::Duration deadline = RealClock().Steady() + timeout;
  while (RealClock().Steady() < deadline) {
    const auto now = ReadReexecRecord(work_dir);
    if (now.ok() && now->attempts > before->attempts) {
      if (now->reexecs > before->reexecs) return now->outcome;
      return absl::AbortedError(now->outcome);
    }
    pollfd ended{agent.value, POLLIN, 0};
    if (poll(&ended, 1, 20) > 0) return absl::UnavailableError("the agent has ended");
  }
  return absl::DeadlineExceededError("the agent has not said what became of it");
}

}  // namespace ll
