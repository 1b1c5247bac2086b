// Many seeded runs of the whole control plane. LL_SIM_SEEDS=N runs seeds 1…N (default 200),
// LL_SIM_SEED=S only S with every event printed. A failure names its seed; the same seed replays
// the same run. LL_SIM_STOP=1 ends with the first failure. LL_SIM_FIRST=N begins with seed N,
// LL_SIM_THREADS=N uses so many cores; many_seeds.py uses both.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/log.h"
#include "gtest/gtest.h"
#include "tests/sim/simulation.h"

namespace ll::sim {
namespace {

// What the loop and the store log of every injected fault.
[[maybe_unused]] const bool kQuiet = [] {
  SetLogLevel(LogLevel::kError);
  SetLogSink([](LogLevel, const char*, int, const std::string&) {});
  return true;
}();

uint64_t Env(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

// Seeds first … last on all cores; each is told to `each`, one at a time, in no order.
void RunSeeds(uint64_t first, uint64_t last, const std::function<SimOptions(uint64_t)>& options,
              const std::function<void(uint64_t, const SimResult&)>& each) {
  std::atomic<uint64_t> next = first;
  std::mutex mutex;
  std::vector<std::thread> threads;
  const uint64_t cores = std::max(1u, std::thread::hardware_concurrency());
  for (uint64_t i = 0; i < Env("LL_SIM_THREADS", cores); ++i) {
    threads.emplace_back([&] {
      for (uint64_t seed = next++; seed <= last; seed = next++) {
        // Who stops at the first failure wants to know the seed of an abort, too.
        if (Env("LL_SIM_STOP", 0) != 0) std::fprintf(stderr, "seed %d\n", static_cast<int>(seed));
        const SimResult result = Simulate(options(seed));
        const std::lock_guard lock(mutex);
        each(seed, result);
        if (!result.violations.empty() && Env("LL_SIM_STOP", 0) != 0) next = last + 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Simulation, KeepsItsPromisesForEverySeed) {
  const uint64_t only = Env("LL_SIM_SEED", 0);
  const uint64_t first = only != 0 ? only : Env("LL_SIM_FIRST", 1),
                 last = only != 0 ? only : Env("LL_SIM_SEEDS", 200);
  SimResult sum;
  int sqlite_seeds = 0;
  int64_t fewest_events = INT64_MAX, most_actions = 0;
  RunSeeds(
      first, last,
      [&](uint64_t seed) {
        return SimOptions{seed, Bug::kNone, /*print=*/only != 0};
      },
      [&](uint64_t seed, const SimResult& result) {
        EXPECT_TRUE(result.violations.empty())
            << result.options << "\n  " << absl::StrJoin(result.violations, "\n  ")
            << "\n  replay: LL_SIM_SEED=" << seed;
        sum.jobs_acked += result.jobs_acked;
        sum.succeeded += result.succeeded;
        sum.failed += result.failed;
        sum.cancelled += result.cancelled;
        sum.attempts += result.attempts;
        sum.preemptions += result.preemptions;
        sum.checkpoints += result.checkpoints;
        sum.steps += result.steps;
        sqlite_seeds += result.sqlite;
        fewest_events = std::min(fewest_events, result.steps);
        most_actions = std::max(most_actions, result.actions);
        EXPECT_GE(result.agents, 20);
        EXPECT_GE(result.jobs_acked, 50);
        for (const auto& [fault, count] : result.faults) sum.faults[fault] += count;
        for (const auto& [wish, count] : result.wishes) sum.wishes[wish] += count;
        for (const auto& [way, count] : result.transitions) sum.transitions[way] += count;
      });
  std::printf(
      "seeds %d-%d, %d of them on SQLite: %d jobs (%d succeeded, %d failed, %d cancelled), %d "
      "attempts, %d preemptions, "
      "%lld checkpoints, %lld events, at least %lld a seed; at most %lld actions of all parties\n",
      static_cast<int>(first), static_cast<int>(last), sqlite_seeds, sum.jobs_acked, sum.succeeded,
      sum.failed, sum.cancelled, sum.attempts, sum.preemptions,
      static_cast<long long>(sum.checkpoints), static_cast<long long>(sum.steps),
      static_cast<long long>(fewest_events), static_cast<long long>(most_actions));
  for (const auto& [fault, count] : sum.faults)
    std::printf("  %-50s %9lld\n", fault.c_str(), static_cast<long long>(count));
  for (const auto& [wish, count] : sum.wishes)
    std::printf("  %-50s %9lld\n", wish.c_str(), static_cast<long long>(count));
  for (JobState from : kAllJobStates) {
    for (JobState to : kAllJobStates) {
      if (!MayTransition(from, to)) continue;
      const int64_t count = sum.transitions[{from, to}];
      std::printf("  %-11s -> %-36s %9lld\n", std::string(JobStateName(from)).c_str(),
                  std::string(JobStateName(to)).c_str(), static_cast<long long>(count));
      // Rare ways need many seeds.
      if (last - first < 999) continue;
      EXPECT_GT(count, 0) << JobStateName(from) << " to " << JobStateName(to);
    }
  }
  if (only != 0) return;
  // The runs were not idle: most jobs got through, and every fault did strike.
  EXPECT_GE(fewest_events, 2000);
  EXPECT_GT(2 * sum.succeeded, sum.jobs_acked);
  EXPECT_GT(sum.attempts, sum.jobs_acked);
  EXPECT_GT(sum.preemptions, 0);
  if (last - first < 999) return;
  EXPECT_EQ(sum.wishes.size(), 21u);
  EXPECT_EQ(sum.faults.size(), 33u);
}

TEST(Simulation, ReplaysASeedExactly) {
  for (uint64_t seed : {3, 17}) {
    const SimResult a = Simulate({seed}), b = Simulate({seed});
    EXPECT_EQ(a.digest, b.digest) << "seed " << seed;
    EXPECT_EQ(a.steps, b.steps);
  }
  EXPECT_NE(Simulate({3}).digest, Simulate({17}).digest);
}

// The simulator must be able to fail: each deliberate mistake is noticed within a few seeds.
class NoticesBug : public testing::TestWithParam<Bug> {};
TEST_P(NoticesBug, WithinThreeHundredSeeds) {
  std::string seen;
  for (uint64_t seed = 1; seed <= 300 && seen.empty(); ++seed) {
    SimOptions options;
    options.seed = seed;
    options.bug = GetParam();
    const SimResult result = Simulate(options);
    if (!result.violations.empty())
      seen = absl::StrCat("seed ", seed, ": ", result.violations.front());
  }
  EXPECT_NE(seen, "");
  std::printf("noticed: %s\n", seen.c_str());
}
INSTANTIATE_TEST_SUITE_P(All, NoticesBug,
                         testing::Values(Bug::kStoreDropsACommit, Bug::kDiskIgnoresSyncs));

}  // namespace
}  // namespace ll::sim
