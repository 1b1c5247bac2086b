#include "tracker/tracker_queue.h"

#include <atomic>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

struct Seen {
  absl::Mutex mu;
  std::vector<int64_t> steps ABSL_GUARDED_BY(mu);
  std::function<absl::Status(int call)> answer = [](int) { return absl::OkStatus(); };
  std::atomic<int> calls = 0;
  std::atomic<bool> cancelled = false;
};

class FakeTracker : public Tracker {
 public:
  explicit FakeTracker(Seen& seen) : seen_(seen) {}
  std::string name() const override { return "fake"; }
  absl::Status Take(const std::vector<TrackerEvent>& batch) override {
    const absl::Status status = seen_.answer(++seen_.calls);
    absl::MutexLock lock(&seen_.mu);
    if (status.ok())
      for (const TrackerEvent& event : batch) seen_.steps.push_back(event.step);
    return status;
  }
  void Cancel() override { seen_.cancelled = true; }

 private:
  Seen& seen_;
};

struct Counts {
  std::atomic<size_t> lost = 0, sent = 0, failures = 0;
  TrackerQueue::Report report() {
    return {.lost = [this](size_t n) { lost += n; },
            .failure = [this](const absl::Status&) { ++failures; },
            .sent = [this](size_t n) { sent += n; }};
  }
};

TrackerEvent Numbered(int64_t step) {
  TrackerEvent event;
  event.step = step;
  return event;
}

TEST(TrackerQueueTest, EverythingArrivesInOrder) {
  Seen seen;
  Counts counts;
  {
    TrackerQueue queue(std::make_unique<FakeTracker>(seen), {.batch = 7}, counts.report());
    for (int i = 0; i < 1000; ++i) queue.Tell(Numbered(i));
  }
  absl::MutexLock lock(&seen.mu);
  ASSERT_EQ(seen.steps.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(seen.steps[i], i);
  EXPECT_EQ(counts.sent, 1000u);
  EXPECT_EQ(counts.lost, 0u);
}

TEST(TrackerQueueTest, ASlowTrackerNeverHoldsTheTeller) {
  Seen seen;
  Counts counts;
  absl::Notification go;
  seen.answer = [&](int) {
    go.WaitForNotificationWithTimeout(absl::Seconds(10));
    return absl::OkStatus();
  };
  const absl::Time began = absl::Now();
  {
    TrackerQueue queue(std::make_unique<FakeTracker>(seen), {.capacity = 100, .batch = 10},
                       counts.report());
    for (int i = 0; i < 10'000; ++i) queue.Tell(Numbered(i));
    EXPECT_LT(absl::Now() - began, absl::Seconds(5));
    EXPECT_GE(counts.lost, 9880u);
    go.Notify();
  }
  EXPECT_EQ(counts.lost + counts.sent, 10'000u) << "each is sent or counted as lost";
}

TEST(TrackerQueueTest, ATrackerThatIsAwayIsTriedAgain) {
  Seen seen;
  Counts counts;
  seen.answer = [](int call) {
    return call < 3 ? absl::UnavailableError("away") : absl::OkStatus();
  };
  {
    TrackerQueue queue(std::make_unique<FakeTracker>(seen),
                       {.tries = 3, .first_pause = absl::Milliseconds(1)}, counts.report());
    queue.Tell(Numbered(1));
    while (counts.sent == 0 && seen.calls < 4) absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(counts.sent, 1u);
  EXPECT_EQ(counts.failures, 2u);
}

TEST(TrackerQueueTest, WhatIsRefusedIsLostAtOnce) {
  Seen seen;
  Counts counts;
  seen.answer = [](int) { return absl::InvalidArgumentError("no"); };
  { TrackerQueue(std::make_unique<FakeTracker>(seen), {}, counts.report()).Tell(Numbered(1)); }
  EXPECT_EQ(counts.lost, 1u);
  EXPECT_EQ(seen.calls, 1);
}

TEST(TrackerQueueTest, TheEndIsNotHeldUp) {
  Seen seen;
  Counts counts;
  seen.answer = [](int) {
    absl::SleepFor(absl::Milliseconds(30));
    return absl::UnavailableError("away");
  };
  const absl::Time began = absl::Now();
  {
    TrackerQueue queue(
        std::make_unique<FakeTracker>(seen),
        {.batch = 1, .first_pause = absl::Seconds(30), .drain = absl::Milliseconds(100)},
        counts.report());
    for (int i = 0; i < 500; ++i) queue.Tell(Numbered(i));
  }
  EXPECT_LT(absl::Now() - began, absl::Seconds(5));
  EXPECT_EQ(counts.lost, 500u);
}

// A server that takes the connection and never answers: the end waits for `drain`, no longer.
TEST(TrackerQueueTest, ATrackerThatHangsIsGivenUpAtTheEnd) {
  Seen seen;
  Counts counts;
  seen.answer = [&](int) {
    for (int i = 0; i < 1500 && !seen.cancelled; ++i) absl::SleepFor(absl::Milliseconds(10));
    return absl::UnavailableError("no answer");
  };
  const absl::Time began = absl::Now();
  {
    TrackerQueue queue(std::make_unique<FakeTracker>(seen), {.drain = absl::Milliseconds(100)},
                       counts.report());
    queue.Tell(Numbered(1));
    while (seen.calls == 0) absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_LT(absl::Now() - began, absl::Seconds(5));
  EXPECT_EQ(counts.lost, 1u);
}

}  // namespace
}  // namespace ll
