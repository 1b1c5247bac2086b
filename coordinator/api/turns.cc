#include "coordinator/api/turns.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/time/time.h"

namespace ll {

Turns::Turns(double per_second, double saved)
    : per_second_(per_second), most_(saved), thread_([this] { Run(); }) {}

Turns::~Turns() {
  {
    absl::MutexLock lock(&mu_);
    ending_ = true;
  }
  changed_.SignalAll();
  thread_.join();
}

void Turns::Await(std::weak_ptr<TurnTaker> who) {
  {
    absl::MutexLock lock(&mu_);
    queue_.push_back(std::move(who));
  }
  changed_.SignalAll();
}

void Turns::Run() {
  using SteadyClock = std::chrono::steady_clock;
  auto counted = SteadyClock::now();
  double saved = most_;
  mu_.Lock();
  while (!ending_) {
    const auto now = SteadyClock::now();
    saved =
        std::min(most_, saved + per_second_ * std::chrono::duration<double>(now - counted).count());
    counted = now;
    if (queue_.empty()) {
      changed_.WaitFor(mu_, absl::Seconds(1));
    } else if (saved < 1) {
      changed_.WaitFor(mu_, absl::Seconds((1 - saved) / per_second_));
    } else {
      const std::shared_ptr<TurnTaker> next = queue_.front().lock();
      queue_.pop_front();
      if (next == nullptr) continue;
      saved -= 1;
      mu_.Unlock();
      next->OnTurn();
      mu_.Lock();
    }
  }
  mu_.Unlock();
}

}  // namespace ll
