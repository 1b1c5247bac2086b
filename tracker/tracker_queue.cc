#include "tracker/tracker_queue.h"

#include <algorithm>

#include "base/clock.h"

namespace ll {

TrackerQueue::TrackerQueue(std::unique_ptr<Tracker> tracker, Options options, Report report)
    : tracker_(std::move(tracker)),
      options_(options),
      report_(std::move(report)),
      thread_([this] { Loop(); }) {}

TrackerQueue::~TrackerQueue() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
    changed_.SignalAll();
    const absl::Duration given_up = RealClock().Steady() + options_.drain;
    while (!ended_ && RealClock().Steady() < given_up) changed_.WaitFor(mu_, options_.drain);
  }
  tracker_->Cancel();
  thread_.join();
}

void TrackerQueue::Tell(TrackerEvent event) {
  {
    absl::MutexLock lock(&mu_);
    if (events_.size() < options_.capacity && !stop_) {
      events_.push_back(std::move(event));
      return;
    }
  }
  report_.lost(1);
}

void TrackerQueue::Loop() {
  Feed();
  absl::MutexLock lock(&mu_);
  ended_ = true;
  changed_.SignalAll();
}

void TrackerQueue::Feed() {
  absl::Duration end = absl::InfiniteDuration();  // steady time
  for (;;) {
    std::vector<TrackerEvent> batch;
    size_t left = 0;
    {
      absl::MutexLock lock(&mu_);
      const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stop_ || !events_.empty();
      };
      mu_.Await(absl::Condition(&work));
      if (stop_ && end == absl::InfiniteDuration()) end = RealClock().Steady() + options_.drain;
      const size_t count = std::min(events_.size(), options_.batch);
      batch.assign(std::make_move_iterator(events_.begin()),
                   std::make_move_iterator(events_.begin() + static_cast<std::ptrdiff_t>(count)));
      events_.erase(events_.begin(), events_.begin() + static_cast<std::ptrdiff_t>(count));
      left = events_.size();
    }
    if (batch.empty()) return;
    if (RealClock().Steady() > end) return report_.lost(batch.size() + left);
    Deliver(batch);
  }
}

void TrackerQueue::Deliver(const std::vector<TrackerEvent>& batch) {
  absl::Duration pause = options_.first_pause;
  for (int i = 1;; ++i) {
    const absl::Status status = tracker_->Take(batch);
    if (status.ok()) return report_.sent(batch.size());
    report_.failure(status);
    if (!absl::IsUnavailable(status) || i >= options_.tries) return report_.lost(batch.size());
    absl::MutexLock lock(&mu_);
    const absl::Duration again = RealClock().Steady() + pause;
    while (!stop_ && RealClock().Steady() < again) changed_.WaitFor(mu_, pause);
    if (stop_) return report_.lost(batch.size());
    pause *= 2;
  }
}

}  // namespace ll
