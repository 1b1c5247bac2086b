#include "base/fake_clock.h"

#include <atomic>
#include <thread>

#include "base/steady_cond_var.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

TEST(FakeClockTest, MovesOnlyWhenToldAndWallStepsLeaveSteadyAlone) {
  FakeClock clock;
  const absl::Time start = clock.Now();
  clock.Advance(absl::Seconds(5));
  EXPECT_EQ(clock.Now() - start, absl::Seconds(5));
  EXPECT_EQ(clock.Steady(), absl::Seconds(5));
  clock.StepWall(-absl::Hours(1));
  EXPECT_EQ(clock.Steady(), absl::Seconds(5));
  EXPECT_EQ(clock.Now() - start, absl::Seconds(5) - absl::Hours(1));
}

TEST(FakeClockTest, SleepWakesWhenTheClockIsAdvanced) {
  FakeClock clock;
  std::atomic<bool> woke = false;
  std::thread sleeper([&] {
    clock.Sleep(absl::Seconds(10));
    woke = true;
  });
  clock.Advance(absl::Seconds(9));
  EXPECT_FALSE(woke);
  // The sleeper may have started after the first advance, so 10 more seconds are enough in both
  // cases.
  while (!woke) clock.Advance(absl::Seconds(10));
  sleeper.join();
}

TEST(RealClockTest, SteadyNeverGoesBack) {
  absl::Duration last = RealClock().Steady();
  for (int i = 0; i < 1000; ++i) {
    const absl::Duration now = RealClock().Steady();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(SteadyCondVarTest, WaitsAsLongAsToldAndWakesBefore) {
  absl::Mutex mu;
  SteadyCondVar changed;
  bool done = false;
  const absl::Duration began = RealClock().Steady();
  {
    absl::MutexLock lock(&mu);
    while (RealClock().Steady() - began < absl::Milliseconds(30))
      changed.WaitFor(mu, absl::Milliseconds(30));
  }
  std::thread other([&] {
    absl::MutexLock lock(&mu);
    done = true;
    changed.SignalAll();
  });
  {
    absl::MutexLock lock(&mu);
    while (!done) changed.WaitFor(mu, absl::InfiniteDuration());
  }
  other.join();
  EXPECT_LT(RealClock().Steady() - began, absl::Seconds(30));
}

}  // namespace
}  // namespace ll
