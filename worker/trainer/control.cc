#include "worker/trainer/control.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/json.h"
#include "base/log.h"
#include "worker/trainer/error_class.h"

namespace ll {
namespace {

constexpr size_t kMaxUnansweredMessages = 64;
constexpr size_t kMostShown = 200;  // of a malformed line
constexpr int kMaxDepth = 128;      // more than the protocol lets a message nest

std::atomic<bool> stop_requested = false;
std::atomic<bool> checkpoint_requested = false;
static_assert(std::atomic<bool>::is_always_lock_free, "signal handlers store into these");

const char* interrupt_line = "";

// The line comes from here: until the step is over that would notice minutes may pass.
void OnInterrupt(int) {
  const int error = errno;
  (void)!write(STDERR_FILENO, interrupt_line, strlen(interrupt_line));
  errno = error;
  stop_requested.store(true);
}

void OnSignal(int signal) {
  (signal == SIGTERM ? stop_requested : checkpoint_requested).store(true);
}

void ExitBecauseAgentDied() {
  LL_LOG(kError) << "the control descriptor was closed: the agent is gone, so this rank ends";
  // Not exit(): destructors could wait for peers that will never answer.
  _exit(ExitCodeOf(ErrorClass::kInfrastructure));
}

}  // namespace

void InstallSignalHandlers() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  // A reader of our events that went away must not kill the job.
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
}

void StopOnInterrupt(const char* line) {
  struct sigaction action = {};
  if (sigaction(SIGINT, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) return;
  interrupt_line = line;
  action = {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = SA_RESTART | SA_RESETHAND;  // the second has the default's effect
  sigaction(SIGINT, &action, nullptr);
}

void EndOnStop() {
  struct sigaction action = {};
  action.sa_handler = [](int) { _exit(kExitStopped); };
  sigaction(SIGTERM, &action, nullptr);
  if (StopRequested()) _exit(kExitStopped);
}

bool StopRequested() { return stop_requested.load(); }
bool TakeCheckpointRequest() { return checkpoint_requested.exchange(false); }

ControlChannel::ControlChannel(int fd, void (*on_agent_death)())
    : fd_(fd), on_agent_death_(on_agent_death == nullptr ? ExitBecauseAgentDied : on_agent_death) {
  if (fd_ < 0) return;
  LL_CHECK(pipe(wake_fds_) == 0);
  reader_ = std::thread([this] { ReadLoop(); });
}

ControlChannel::~ControlChannel() {
  if (fd_ < 0) return;
  [[maybe_unused]] const ssize_t n = write(wake_fds_[1], "x", 1);
  reader_.join();
  close(wake_fds_[0]);
  close(wake_fds_[1]);
}

void ControlChannel::ReadLoop() {
  std::string pending;
  char buffer[4096];
  while (true) {
    pollfd polls[2] = {{fd_, POLLIN, 0}, {wake_fds_[0], POLLIN, 0}};
    if (poll(polls, 2, -1) < 0) {
      if (errno == EINTR) continue;
      return on_agent_death_();
    }
    if (polls[1].revents != 0) return;
    const ssize_t n = read(fd_, buffer, sizeof buffer);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return on_agent_death_();
    pending.append(buffer, n);
    size_t end;
    while ((end = pending.find('\n')) != std::string::npos) {
      HandleLine(pending.substr(0, end));
      pending.erase(0, end + 1);
    }
  }
}

void ControlChannel::HandleLine(const std::string& line) {
  const nlohmann::json message =
      ParseJsonObject(line, {.max_depth = kMaxDepth}).value_or(nlohmann::json::object());
  absl::MutexLock lock(&mu_);
  heard_.SignalAll();
  if (message.contains("say")) {
    if (messages_.size() >= kMaxUnansweredMessages) {
      LL_LOG(kWarning) << "a message is dropped: " << messages_.size() << " wait for an answer";
      return;
    }
    messages_.push_back(
        message["say"].dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else if (message.contains("rendezvous") && message["rendezvous"].is_string()) {
    rendezvous_ = message["rendezvous"].get<std::string>();
  } else {
    malformed_ = line.substr(0, kMostShown);
  }
}

std::optional<std::string> ControlChannel::NextMessage(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const auto arrived = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !messages_.empty(); };
  if (!heard_.AwaitFor(mu_, timeout, arrived)) return std::nullopt;
  std::string message = std::move(messages_.front());
  messages_.pop_front();
  return message;
}

absl::StatusOr<std::string> ControlChannel::WaitForRendezvous(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const auto arrived = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !rendezvous_.empty() || !malformed_.empty();
  };
  if (!heard_.AwaitFor(mu_, timeout, arrived)) {
    return absl::DeadlineExceededError(absl::StrCat(
        "rendezvous: the agent sent no address of rank 0 within ", absl::FormatDuration(timeout)));
  }
  if (rendezvous_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("control: expected {\"rendezvous\":\"host:port\"}, found ", malformed_));
  }
  return rendezvous_;
}

}  // namespace ll
