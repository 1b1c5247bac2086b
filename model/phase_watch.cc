#include "model/phase_watch.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace ll {

void PhaseWatch::Mark() {
  if (device_.is_cpu()) {
    times_.push_back(std::chrono::steady_clock::now());
    return;
  }
  events_.emplace_back(device_.type(), c10::EventFlag::BACKEND_DEFAULT);  // with times
  events_.back().record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
}

std::vector<double> PhaseWatch::Seconds() const {
  std::vector<double> seconds;
  for (size_t i = 1; i < times_.size(); ++i)
    seconds.push_back(std::chrono::duration<double>(times_[i] - times_[i - 1]).count());
  for (size_t i = 1; i < events_.size(); ++i)
    seconds.push_back(events_[i - 1].elapsedTime(events_[i]) / 1e3);  // of milliseconds
  return seconds;
}

}  // namespace ll
