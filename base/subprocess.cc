#include "base/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"

extern char** environ;

namespace ll {
namespace {

std::vector<std::string> EnvironmentWith(const std::map<std::string, std::string>& extra,
                                         bool inherit) {
  std::vector<std::string> out;
  for (char** e = environ; inherit && *e != nullptr; ++e) {
    const std::string entry = *e;
    if (!extra.count(entry.substr(0, entry.find('=')))) out.push_back(entry);
  }
  for (const auto& [name, value] : extra) out.push_back(name + "=" + value);
  return out;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

// Places the inherited descriptors at their child numbers and closes the rest. Only
// async-signal-safe calls: this runs between fork and exec. `moved` has room for every inherited
// descriptor.
void ArrangeDescriptors(const std::vector<std::pair<int, int>>& fds, int* moved, int report_fd) {
  int highest = report_fd;
  for (const auto& [child, parent] : fds) highest = std::max({highest, child, parent});
  // First out of the way of every target, then into place, so that swaps cannot overwrite each
  // other.
  for (size_t i = 0; i < fds.size(); ++i)
    moved[i] = fcntl(fds[i].second, F_DUPFD_CLOEXEC, highest + 1);
  for (size_t i = 0; i < fds.size(); ++i) dup2(moved[i], fds[i].first);
}

bool IsTarget(const std::vector<std::pair<int, int>>& fds, int fd) {
  for (const auto& [child, parent] : fds) {
    if (child == fd) return true;
  }
  return false;
}

[[noreturn]] void Report(int fd, int error) {
  (void)!write(fd, &error, sizeof error);
  _exit(127);
}

bool ReadableWithin(int fd, absl::Duration timeout) {
  const absl::Duration deadline = RealClock().Steady() + timeout;
  pollfd told{fd, POLLIN, 0};
  int n;
  do {
    const absl::Duration left = std::max(absl::ZeroDuration(), deadline - RealClock().Steady());
    n = poll(&told, 1, static_cast<int>(absl::ToInt64Milliseconds(left)));
  } while (n < 0 && errno == EINTR);
  return n > 0;
}

struct ChildPlan {
  std::vector<std::pair<int, int>> fds;
  std::vector<int> moved;
  char** argv;
  char** envp;
  const char* directory;
  bool group, die_with_parent;
  pid_t parent;
  int report_fd;
  int sandbox_fd;            // -1: none
  const UserIdentity* user;  // null: the parent's
};

[[noreturn]] void RunChild(ChildPlan& plan) {
  if (plan.group) setpgid(0, 0);
  // Before the signal is asked for: a change of user takes it back.
  if (plan.user != nullptr) {
    if (const int error = BecomeUser(*plan.user); error != 0) Report(plan.report_fd, error);
  }
  if (plan.die_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != plan.parent) _exit(127);  // the parent died before prctl took effect
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int s : {SIGPIPE, SIGINT, SIGTERM, SIGCHLD, SIGHUP}) signal(s, SIG_DFL);
  if (plan.sandbox_fd >= 0) {
    if (const int error = EnterSandbox(plan.sandbox_fd); error != 0) Report(plan.report_fd, error);
  }
  // The report pipe must not sit on a number that the child wants.
  int report = fcntl(plan.report_fd, F_DUPFD_CLOEXEC, 200);
  if (report < 0) report = plan.report_fd;
  ArrangeDescriptors(plan.fds, plan.moved.data(), report);
  for (int fd = 3; fd < 1024; ++fd) {
    if (fd != report && !IsTarget(plan.fds, fd)) close(fd);
  }
  if (*plan.directory != '\0' && chdir(plan.directory) != 0) Report(report, errno);
  execve(plan.argv[0], plan.argv, plan.envp);
  Report(report, errno);
}

}  // namespace

absl::StatusOr<Subprocess> Subprocess::Start(const SubprocessOptions& options) {
  LL_CHECK(!options.argv.empty());
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0)
    return ErrnoStatus(errno, "cannot make a pipe for", options.argv[0]);
  std::vector<std::string> argv = options.argv;
  std::vector<std::string> env = EnvironmentWith(options.environment, options.inherit_environment);
  std::vector<char*> argv_pointers = Pointers(argv), env_pointers = Pointers(env);
  ChildPlan plan{{options.inherited_fds.begin(), options.inherited_fds.end()},
                 std::vector<int>(options.inherited_fds.size()),
                 argv_pointers.data(),
                 env_pointers.data(),
                 options.working_directory.c_str(),
                 options.new_process_group,
                 options.die_with_parent,
                 getpid(),
                 report[1],
                 options.sandbox == nullptr ? -1 : options.sandbox->fd(),
                 options.user ? &*options.user : nullptr};
  const pid_t pid = fork();
  if (pid == 0) RunChild(plan);
  const int fork_error = errno;
  close(report[1]);
  if (pid < 0) {
    close(report[0]);
    return ErrnoStatus(fork_error, "cannot fork for", options.argv[0]);
  }
  // Both sides set the group, so that a signal sent right after this reaches it.
  if (options.new_process_group) setpgid(pid, pid);
  Subprocess child(pid, options.new_process_group);
  int exec_error = 0;
  const bool told = ReadableWithin(report[0], options.start_timeout);
  const ssize_t n = told ? read(report[0], &exec_error, sizeof exec_error) : 0;
  close(report[0]);
  if (!told) {
    return absl::DeadlineExceededError(absl::StrCat("cannot execute ", options.argv[0],
                                                    ": nothing happened for ",
                                                    absl::FormatDuration(options.start_timeout)));
  }
  if (n == static_cast<ssize_t>(sizeof exec_error)) {
    return ErrnoStatus(exec_error, "cannot execute", options.argv[0]);
  }
  return child;
}

absl::StatusOr<Subprocess> Subprocess::Adopt(pid_t pid, bool group) {
  siginfo_t info{};
  // Looks without taking the status of one that has ended already.
  if (pid <= 0 || waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
    return absl::NotFoundError(absl::StrCat("process ", pid, " is no child of this one"));
  }
  return Subprocess(pid, group);
}

Subprocess::Subprocess(Subprocess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), group_(other.group_), exit_(other.exit_) {}

Subprocess& Subprocess::operator=(Subprocess&& other) noexcept {
  if (this != &other) {
    KillAndReap();
    pid_ = std::exchange(other.pid_, -1);
    group_ = other.group_;
    exit_ = other.exit_;
  }
  return *this;
}

Subprocess::~Subprocess() { KillAndReap(); }

void Subprocess::KillAndReap() {
  if (pid_ < 0 || exit_) return;
  Signal(SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

std::optional<ExitStatus> Subprocess::Poll() {
  if (exit_ || pid_ < 0) return exit_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  exit_ =
      WIFSIGNALED(status) ? ExitStatus{0, WTERMSIG(status)} : ExitStatus{WEXITSTATUS(status), 0};
  // Grandchildren must not outlive the child that the caller believes gone.
  if (group_) kill(-pid_, SIGKILL);
  return exit_;
}

std::optional<ExitStatus> Subprocess::Wait(absl::Duration timeout) {
  const absl::Duration deadline = RealClock().Steady() + timeout;
  while (!Poll() && RealClock().Steady() < deadline) absl::SleepFor(absl::Milliseconds(2));
  return exit_;
}

void Subprocess::Signal(int signal) {
  if (pid_ < 0 || exit_) return;
  kill(group_ ? -pid_ : pid_, signal);
}

}  // namespace ll
