#include "worker/agent/rank_process.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/agent/process_marker.h"
#include "worker/agent/spool.h"

namespace ll {
namespace {

constexpr int kChildEventsFd = 3;
constexpr int kChildControlFd = 4;
// A stopped agent (a debugger, a frozen host) stops reading; this much keeps a trainer going for
// thousands of steps.
constexpr int kPipeBytes = 1 << 20;
constexpr size_t kMaxUnreadControlBytes = 4 << 20;

struct Fd {
  int value = -1;
  ~Fd() {
    if (value >= 0) close(value);
  }
  int Release() { return std::exchange(value, -1); }
};

struct Pipe {
  Fd read, write;
  absl::Status Open() {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "cannot make", "a pipe");
    read.value = fds[0];
    write.value = fds[1];
    return absl::OkStatus();
  }
};

absl::Status OpenInto(Fd& fd, const std::string& path, int flags) {
  // The folder is another rank's too, which may have put a link or a FIFO there.
  fd.value = open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
  if (fd.value < 0) return ErrnoStatus(errno, "cannot open", path);
  fcntl(fd.value, F_SETFL, flags & O_APPEND);
  return absl::OkStatus();
}

class ChildProcess : public RankProcess {
 public:
  ChildProcess(Subprocess process, int events_fd, int control_fd, int exit_fd, std::string mark);
  ~ChildProcess() override;

  pid_t pid() const override { return process_.pid(); }
  int events_fd() const override { return events_fd_; }
  int exit_fd() const override { return exit_fd_; }
  void ReadEvents(const std::function<void(absl::string_view)>& on_line,
                  const std::function<void(int64_t)>& on_overlong) override;
  void SendControlLine(absl::string_view line) override;
  void Stop(absl::Duration now, absl::Duration grace) override;
  void Kill() override;
  void Tick(absl::Duration now) override;
  std::optional<ExitStatus> Poll() override;
  RankHandover Handover() const override {
    return {process_.pid(), events_fd_,     control_fd_, control_,
            partial_,       dropped_bytes_, kill_at_,    mark_};
  }
  void Continue(const RankHandover& from) {
    control_ = from.unwritten;
    partial_ = from.half_line;
    dropped_bytes_ = from.dropped_bytes;
    kill_at_ = from.kill_at;
  }

 private:
  void Consume(absl::string_view bytes, const std::function<void(absl::string_view)>& on_line,
               const std::function<void(int64_t)>& on_overlong);
  void FlushControl();

  Subprocess process_;
  int events_fd_, control_fd_, exit_fd_;
  std::string mark_;
  std::string control_;        // not yet written to the control descriptor
  std::string partial_;        // of the line being received
  int64_t dropped_bytes_ = 0;  // of an overlong line being received
  std::optional<absl::Duration> kill_at_;
  bool ended_ = false;
};

ChildProcess::ChildProcess(Subprocess process, int events_fd, int control_fd, int exit_fd,
                           std::string mark)
    : process_(std::move(process)),
      events_fd_(events_fd),
      control_fd_(control_fd),
      exit_fd_(exit_fd),
      mark_(std::move(mark)) {}

ChildProcess::~ChildProcess() {
  if (!ended_) {
    Kill();
    KillMarked(mark_, 0);
  }
  for (int fd : {events_fd_, control_fd_, exit_fd_}) {
    if (fd >= 0) close(fd);
  }
}

void ChildProcess::Consume(absl::string_view bytes,
                           const std::function<void(absl::string_view)>& on_line,
                           const std::function<void(int64_t)>& on_overlong) {
  while (!bytes.empty()) {
    const size_t newline = bytes.find('\n');
    const absl::string_view piece = bytes.substr(0, newline);
    if (dropped_bytes_ > 0 || partial_.size() + piece.size() >= TelemetryCursor::kMaxLineBytes) {
      dropped_bytes_ += static_cast<int64_t>(partial_.size() + piece.size());
      partial_.clear();
    } else {
      partial_.append(piece.data(), piece.size());
    }
    if (newline == absl::string_view::npos) return;
    bytes.remove_prefix(newline + 1);
    if (dropped_bytes_ > 0) {
      on_overlong(std::exchange(dropped_bytes_, 0));
    } else {
      on_line(partial_);
      partial_.clear();
    }
  }
}

void ChildProcess::ReadEvents(const std::function<void(absl::string_view)>& on_line,
                              const std::function<void(int64_t)>& on_overlong) {
  char buffer[65536];
  // Bounded, so that one chatty rank does not keep the others and the heartbeat waiting.
  for (int i = 0; i < 64 && events_fd_ >= 0; ++i) {
    const ssize_t n = read(events_fd_, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      // The end. A half line is what a killed process was writing: not an event.
      close(std::exchange(events_fd_, -1));
      return;
    }
    Consume({buffer, static_cast<size_t>(n)}, on_line, on_overlong);
  }
}

void ChildProcess::SendControlLine(absl::string_view line) {
  if (control_.size() + line.size() > kMaxUnreadControlBytes) return;
  absl::StrAppend(&control_, line, "\n");
  FlushControl();
}

void ChildProcess::FlushControl() {
  while (!control_.empty()) {
    const ssize_t n = write(control_fd_, control_.data(), control_.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    // EPIPE shows as the rank's end. SIGPIPE is ignored by the process.
    if (n <= 0) return control_.clear();
    control_.erase(0, static_cast<size_t>(n));
  }
}

void ChildProcess::Stop(absl::Duration now, absl::Duration grace) {
  if (!kill_at_) process_.Signal(SIGTERM);
  kill_at_ = std::min(kill_at_.value_or(absl::InfiniteDuration()), now + grace);
}

// What left the process group is found when the end is noticed, by Poll.
void ChildProcess::Kill() { process_.Signal(SIGKILL); }

void ChildProcess::Tick(absl::Duration now) {
  FlushControl();
  if (kill_at_ && now >= *kill_at_) {
    kill_at_ = absl::InfiniteDuration();
    Kill();
  }
}

std::optional<ExitStatus> ChildProcess::Poll() {
  std::optional<ExitStatus> exit = process_.Poll();
  if (exit && !std::exchange(ended_, true)) KillMarked(mark_, 0);
  return exit;
}

// Ours again, and nobody else's: a rank that is started must not inherit it.
absl::Status TakeDescriptor(int fd, const char* what) {
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("cannot go on with descriptor ", fd, ","), what);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankProcess>> RankProcess::Adopt(const RankHandover& from) {
  LL_ASSIGN_OR_RETURN(Subprocess process, Subprocess::Adopt(from.pid, /*group=*/true));
  if (from.events_fd >= 0) LL_RETURN_IF_ERROR(TakeDescriptor(from.events_fd, "a rank's events"));
  LL_RETURN_IF_ERROR(TakeDescriptor(from.control_fd, "a rank's control"));
  const int exit_fd = PidfdOpen(from.pid);
  if (exit_fd < 0) return ErrnoStatus(errno, "cannot watch", absl::StrCat("process ", from.pid));
  auto out = std::make_unique<ChildProcess>(std::move(process), from.events_fd, from.control_fd,
                                            exit_fd, from.mark);
  out->Continue(from);
  return out;
}

absl::StatusOr<std::unique_ptr<RankProcess>> RankProcess::Start(const RankCommand& command) {
  Pipe events, control;
  Fd log, null;
  LL_RETURN_IF_ERROR(events.Open());
  LL_RETURN_IF_ERROR(control.Open());
  LL_RETURN_IF_ERROR(OpenInto(log, command.log_path, O_WRONLY | O_CREAT | O_APPEND));
  LL_RETURN_IF_ERROR(OpenInto(null, "/dev/null", O_RDONLY));
  fcntl(events.write.value, F_SETPIPE_SZ, kPipeBytes);  // a smaller pipe works too
  fcntl(events.read.value, F_SETFL, O_NONBLOCK);
  fcntl(control.write.value, F_SETFL, O_NONBLOCK);

  SubprocessOptions options;
  options.argv = command.argv;
  for (const std::string& word : {std::string("--events-fd"), absl::StrCat(kChildEventsFd),
                                  std::string("--control-fd"), absl::StrCat(kChildControlFd)}) {
    options.argv.push_back(word);
  }
  options.environment = command.environment;
  options.inherit_environment = false;
  options.sandbox = command.sandbox.get();
  options.user = command.user;
  options.environment[kMarkName] = command.mark;
  options.working_directory = command.working_directory;
  options.inherited_fds = {{0, null.value},
                           {1, log.value},
                           {2, log.value},
                           {kChildEventsFd, events.write.value},
                           {kChildControlFd, control.read.value}};
  LL_ASSIGN_OR_RETURN(Subprocess process, Subprocess::Start(options));
  const int exit_fd = PidfdOpen(process.pid());
  if (exit_fd < 0) return ErrnoStatus(errno, "cannot watch the process of", command.argv[0]);
  return std::make_unique<ChildProcess>(std::move(process), events.read.Release(),
                                        control.write.Release(), exit_fd, command.mark);
}

}  // namespace ll
