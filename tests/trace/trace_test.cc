#include "tests/trace/trace.h"

#include "base/status_matchers.h"

namespace ll::trace {
namespace {

std::vector<TraceJob> Jobs(std::vector<std::pair<int, int>> gpus_and_minutes) {
  std::vector<TraceJob> jobs;
  for (const auto& [gpus, minutes] : gpus_and_minutes) {
    TraceJob job;
    job.arrival = absl::Seconds(jobs.size());
    job.gpus = gpus;
    job.run = job.estimate = absl::Minutes(minutes);
    jobs.push_back(job);
  }
  return jobs;
}

absl::Duration Start(const Timeline& timeline, size_t job) { return timeline[job].front().begin; }

// 8 GPUs: the second job waits for the first; the third fits beside it only by passing the second.
TEST(Trace, PoliciesDifferWhereTheyShould) {
  std::vector<TraceJob> jobs = Jobs({{6, 60}, {8, 60}, {2, 30}, {2, 90}});
  EXPECT_EQ(Start(RunFifo(jobs, 8), 2), absl::Minutes(120));
  for (const Timeline& easy :
       {RunEasy(jobs, 8), RunCore(jobs, 8, absl::Seconds(30), /*priorities=*/false)}) {
    EXPECT_EQ(Start(easy, 2), jobs[2].arrival);
    EXPECT_EQ(Start(easy, 1), absl::Minutes(60));
    EXPECT_EQ(Start(easy, 3), absl::Minutes(120));  // would delay the reservation
  }
  jobs[3].priority = 1;
  EXPECT_EQ(Start(RunStrictPriority(jobs, 8), 3), jobs[3].arrival);
}

TEST(Trace, ThePreemptedLosesNothing) {
  std::vector<TraceJob> jobs = Jobs({{8, 60}, {8, 10}});
  jobs[1].priority = 1;
  jobs[1].arrival = absl::Minutes(30);
  const Timeline timeline = RunCore(jobs, 8, absl::Seconds(30), /*priorities=*/true);
  ASSERT_EQ(timeline[0].size(), 2u);
  EXPECT_LE(Start(timeline, 1), absl::Minutes(31) + absl::Seconds(1));
  const Summary summary = Summarise(jobs, timeline, 8);  // checks the run times
  EXPECT_EQ(summary.preemptions, 1);
  EXPECT_LT(summary.high_wait, 61);
}

TEST(Trace, EveryPolicyRunsEveryJobOfARandomTrace) {
  for (uint64_t seed = 0; seed < 3; ++seed) {
    TraceOptions options;
    options.seed = seed;
    options.jobs = 600;
    options.load = 1.1;
    const std::vector<TraceJob> jobs = MakeTrace(options);
    const Summary fifo = Summarise(jobs, RunFifo(jobs, 128), 128);
    const Summary easy = Summarise(jobs, RunEasy(jobs, 128), 128);
    const Summary core =
        Summarise(jobs, RunCore(jobs, 128, absl::Seconds(30), /*priorities=*/false), 128);
    Summarise(jobs, RunCore(jobs, 128, absl::Seconds(30), /*priorities=*/true), 128);
    Summarise(jobs, RunStrictPriority(jobs, 128), 128);
    Summarise(jobs, RunEasyPriority(jobs, 128), 128);
    EXPECT_LE(easy.mean_wait, fifo.mean_wait) << "seed " << seed;
    EXPECT_LE(core.mean_wait, fifo.mean_wait) << "seed " << seed;
    EXPECT_GT(core.utilisation, 0.3) << "seed " << seed;
  }
}

}  // namespace
}  // namespace ll::trace
