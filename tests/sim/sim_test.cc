// Many seeded runs of the whole control plane. LL_SIM_SEEDS=N runs seeds 1…N (default 200),
// LL_SIM_SEED=S only S with every event printed. A failure names its seed; the same seed replays
// the same run.
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "tests/sim/simulation.h"

namespace ll::sim {
namespace {

uint64_t Env(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

TEST(Simulation, KeepsItsPromisesForEverySeed) {
  const uint64_t only = Env("LL_SIM_SEED", 0);
  const uint64_t first = only != 0 ? only : 1, last = only != 0 ? only : Env("LL_SIM_SEEDS", 200);
  SimResult sum;
  for (uint64_t seed = first; seed <= last; ++seed) {
    SimOptions options;
    options.seed = seed;
    options.print = only != 0;
    const SimResult result = Simulate(options);
    EXPECT_TRUE(result.violations.empty())
        << result.options << "\n  " << absl::StrJoin(result.violations, "\n  ")
        << "\n  replay: LL_SIM_SEED=" << seed;
    sum.jobs_acked += result.jobs_acked;
    sum.succeeded += result.succeeded;
    sum.failed += result.failed;
    sum.cancelled += result.cancelled;
    sum.attempts += result.attempts;
    sum.coordinator_crashes += result.coordinator_crashes;
    sum.agent_crashes += result.agent_crashes;
    sum.partitions += result.partitions;
    sum.preemptions += result.preemptions;
    sum.checkpoints += result.checkpoints;
    sum.steps += result.steps;
  }
  std::printf(
      "seeds %d-%d: %d jobs (%d succeeded, %d failed, %d cancelled), %d attempts, %d coordinator "
      "crashes, "
      "%d agent crashes, %d partitions, %d preemptions, %d checkpoints, %d events\n",
      static_cast<int>(first), static_cast<int>(last), sum.jobs_acked, sum.succeeded, sum.failed,
      sum.cancelled, sum.attempts, sum.coordinator_crashes, sum.agent_crashes, sum.partitions,
      sum.preemptions, static_cast<int>(sum.checkpoints), static_cast<int>(sum.steps));
  // The runs were not idle: most jobs got through, and faults did strike.
  EXPECT_GT(2 * sum.succeeded, sum.jobs_acked);
  EXPECT_GT(sum.attempts, sum.jobs_acked);
  EXPECT_GT(sum.preemptions, 0);
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
                         testing::Values(Bug::kStoreDropsACommit, Bug::kSendBeforePersist,
                                         Bug::kAgentIgnoresVerdicts, Bug::kAgentOutlivesHeadless));

}  // namespace
}  // namespace ll::sim
