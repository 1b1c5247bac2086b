#include "llctl/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/check.h"
#include "llctl/errors.h"

namespace ll {

void Interrupt::Arm() {
  if (thread_.joinable()) return;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  const int signals = signalfd(-1, &set, SFD_CLOEXEC);
  wake_fd_ = eventfd(0, EFD_CLOEXEC);
  LL_CHECK(signals >= 0 && wake_fd_ >= 0);
  thread_ = std::thread([this, signals] {
    pollfd fds[2] = {{signals, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
    while (true) {
      if (poll(fds, 2, /*timeout_ms=*/-1) < 0) continue;  // ended by wake_fd_
      if (fds[1].revents != 0) break;
      signalfd_siginfo info;
      if (read(signals, &info, sizeof(info)) != sizeof(info)) continue;
      if (raised_) _exit(kExitDetached);
      Raise();
    }
    close(signals);
  });
}

Interrupt::~Interrupt() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  LL_CHECK(write(wake_fd_, &one, sizeof(one)) == sizeof(one));
  thread_.join();
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
