#include "worker/agent/agent_metrics.h"

#include <prometheus/text_serializer.h>

#include "absl/strings/str_cat.h"
#include "base/status_matchers.h"

namespace ll {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;

TEST(AgentMetricsTest, PhasesAndScoreOfARankLiveAsLongAsItsGang) {
  AgentMetrics metrics("test");
  const auto text = [&] {
    return prometheus::TextSerializer().Serialize(metrics.registry().Collect());
  };
  const GangKey gang{"job-a", 1};
  const auto tell = [&](int rank, const std::string& line) {
    LL_ASSERT_OK_AND_ASSIGN(const TrainerEvent event, ParseTrainerEvent(line));
    metrics.OnEvent(gang, rank, event);
  };
  tell(0, R"({"event":"step","step":3,"step_seconds":2,"forward_seconds":0.5,
              "straggler_score":1.75})");
  EXPECT_THAT(text(), HasSubstr("ll_rank_step{job_id=\"job-a\",rank=\"0\"} 3"));
  EXPECT_THAT(
      text(),
      HasSubstr("ll_rank_phase_seconds{job_id=\"job-a\",phase=\"forward\",rank=\"0\"} 0.5"));
  EXPECT_THAT(text(), Not(HasSubstr("ll_rank_straggler_score{")));  // the job's, not the rank's
  tell(1, R"({"event":"times","step":3,"wait_seconds":0.25,"straggler_score":1.25})");
  EXPECT_THAT(text(),
              HasSubstr("ll_rank_phase_seconds{job_id=\"job-a\",phase=\"wait\",rank=\"1\"} 0.25"));
  EXPECT_THAT(text(), HasSubstr("ll_rank_straggler_score{job_id=\"job-a\",rank=\"1\"} 1.25"));
  // Rank 1 tells no steps of its own, but where it is; what it does not tell is no 0.
  tell(1, R"({"event":"times","step":7})");
  EXPECT_THAT(text(), HasSubstr("ll_rank_step{job_id=\"job-a\",rank=\"1\"} 7"));
  EXPECT_THAT(text(), HasSubstr("ll_rank_step{job_id=\"job-a\",rank=\"0\"} 3"));
  for (const char* name : {"step_seconds", "tokens_per_second", "peak_memory_bytes"}) {
    EXPECT_THAT(text(),
                Not(HasSubstr(absl::StrCat("ll_rank_", name, "{job_id=\"job-a\",rank=\"1\"}"))));
  }
  metrics.Forget(gang);
  EXPECT_THAT(text(), Not(HasSubstr("job-a")));
}

TEST(AgentMetricsTest, AnAttemptInheritsTheSeriesOfTheOneBefore) {
  AgentMetrics metrics("test");
  const auto text = [&] {
    return prometheus::TextSerializer().Serialize(metrics.registry().Collect());
  };
  const GangKey first{"job-a", 1}, second{"job-a", 2};
  LL_ASSERT_OK_AND_ASSIGN(const TrainerEvent step,
                          ParseTrainerEvent(R"({"event":"step","step":3,"step_seconds":2})"));
  LL_ASSERT_OK_AND_ASSIGN(const TrainerEvent started, ParseTrainerEvent(R"({"event":"hello"})"));
  metrics.OnEvent(first, 0, step);
  metrics.OnEvent(second, 0, started);
  metrics.Forget(first);
  EXPECT_THAT(text(), HasSubstr("ll_rank_step{job_id=\"job-a\",rank=\"0\"} 3"));
  metrics.Forget(second);
  EXPECT_THAT(text(), Not(HasSubstr("job-a")));
}

TEST(AgentMetricsTest, GpusOfRanks) {
  AgentMetrics metrics("test");
  const auto text = [&] {
    return prometheus::TextSerializer().Serialize(metrics.registry().Collect());
  };
  metrics.SetGpuRanks({{{"job-a", 2}, 0, 3}, {{"job-a", 2}, 1, 5}});
  EXPECT_THAT(
      text(),
      HasSubstr("ll_rank_gpu_info{attempt=\"2\",gpu=\"5\",job_id=\"job-a\",rank=\"1\"} 1\n"));
  metrics.SetGpuRanks({{{"job-a", 2}, 0, 3}});
  EXPECT_THAT(text(), HasSubstr("gpu=\"3\""));
  EXPECT_THAT(text(), Not(HasSubstr("gpu=\"5\"")));
  metrics.SetGpuRanks({});
  EXPECT_THAT(text(), Not(HasSubstr("job-a")));
}

// Every name is a series of the agent's: a trainer does not make as many as it likes.
TEST(AgentMetricsTest, PhasesOfARankAreBounded) {
  AgentMetrics metrics("test");
  for (int i = 0; i < 1000; ++i) {
    LL_ASSERT_OK_AND_ASSIGN(
        const TrainerEvent event,
        ParseTrainerEvent(absl::StrCat(R"({"event":"times","p)", i, R"(_seconds":1})")));
    metrics.OnEvent({"job-a", 1}, 0, event);
  }
  size_t phases = 0;
  for (const prometheus::MetricFamily& family : metrics.registry().Collect())
    phases += family.name == "ll_rank_phase_seconds" ? family.metric.size() : 0;
  EXPECT_EQ(phases, 32u);
}

}  // namespace
}  // namespace ll
