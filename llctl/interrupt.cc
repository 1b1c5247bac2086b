#include "llctl/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/check.h"
#include "llctl/errors.h"

namespace ll {
namespace {

// Of the Interrupt that is armed. A handler and not a mask: the mask of threads that were there
// before would have to be changed too, and libraries start theirs as they like.
std::atomic<int> caught_fd = -1;
static_assert(std::atomic<int>::is_always_lock_free);

void OnSigint(int) {
  const int before = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(caught_fd, &one, sizeof(one));
  errno = before;
}

}  // namespace

void Interrupt::Arm() {
  if (thread_.joinable()) return;
  const int caught = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  wake_fd_ = eventfd(0, EFD_CLOEXEC);
  LL_CHECK(caught >= 0 && wake_fd_ >= 0);
  caught_fd = caught;
  thread_ = std::thread([this, caught] {
    pollfd fds[2] = {{caught, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
    while (true) {
      if (poll(fds, 2, /*timeout_ms=*/-1) < 0) continue;  // ended by wake_fd_
      if (fds[1].revents != 0) break;
      uint64_t times = 0;
      if (read(caught, &times, sizeof(times)) != sizeof(times)) continue;
      if (raised_ || times > 1) _exit(kExitDetached);
      Raise();
    }
  });
  struct sigaction action {};
  action.sa_handler = OnSigint;
  action.sa_flags = SA_RESTART;
  LL_CHECK(sigaction(SIGINT, &action, nullptr) == 0);
}

Interrupt::~Interrupt() {
  if (!thread_.joinable()) return;
  signal(SIGINT, SIG_DFL);
  const uint64_t one = 1;
  LL_CHECK(write(wake_fd_, &one, sizeof(one)) == sizeof(one));
  thread_.join();
  close(caught_fd.exchange(-1));
  close(wake_fd_);
}

void Interrupt::Raise() {
  std::lock_guard lock(mutex_);
  raised_ = true;
  if (stop_) stop_();
  changed_.notify_all();
}

bool Interrupt::SleepFor(absl::Duration duration) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, absl::ToChronoNanoseconds(duration),
                           [this] { return raised_.load(); });
}

Interrupt::Scope::Scope(Interrupt& interrupt, std::function<void()> stop) : interrupt_(interrupt) {
  std::lock_guard lock(interrupt_.mutex_);
  interrupt_.stop_ = std::move(stop);
  if (interrupt_.raised_) interrupt_.stop_();
}

Interrupt::Scope::~Scope() {
  std::lock_guard lock(interrupt_.mutex_);
  interrupt_.stop_ = nullptr;
}

}  // namespace ll
