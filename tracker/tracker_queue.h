// Feeds one tracker from a thread of its own, so that whoever tells events never waits: what does
// not fit into the queue is dropped and counted.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "base/steady_cond_var.h"
#include "tracker/tracker.h"

namespace ll {

// Thread-safe.
class TrackerQueue {
 public:
  struct Options {
    size_t capacity = 10'000;  // events
    size_t batch = 500;
    int tries = 3;  // of a batch, when the tracker is Unavailable
    absl::Duration first_pause = absl::Milliseconds(500);  // doubles with every try
    absl::Duration drain = absl::Seconds(2);               // at the end, for what is left
  };
  // Called on the queue's thread (`lost` and `failure`) or the teller's (`lost`).
  struct Report {
    std::function<void(size_t events)> lost = [](size_t) {};
    std::function<void(const absl::Status& status)> failure = [](const absl::Status&) {};
    std::function<void(size_t events)> sent = [](size_t) {};
  };

  TrackerQueue(std::unique_ptr<Tracker> tracker, Options options, Report report);
  // Gives the tracker what is left, for `drain` at most; then what is under way is cancelled.
  ~TrackerQueue();

  // Never waits.
  void Tell(TrackerEvent event);

 private:
  void Loop();
  void Feed();
  void Deliver(const std::vector<TrackerEvent>& batch);

  const std::unique_ptr<Tracker> tracker_;  // the thread's
  const Options options_;
  const Report report_;
  absl::Mutex mu_;
  std::deque<TrackerEvent> events_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;  // the thread's work
  SteadyCondVar changed_;                    // stop_, ended_
  std::thread thread_;                       // last: it uses the others
};

}  // namespace ll
