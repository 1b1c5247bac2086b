// The cluster's and the jobs' metrics over a real scheduler.
#include "coordinator/runtime/cluster_metrics.h"

#include <prometheus/text_serializer.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/fake_clock.h"
#include "base/status_matchers.h"
#include "coordinator/runtime/job_metrics.h"
#include "coordinator/runtime/metrics.h"
#include "proto/job.pb.h"

namespace ll {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;

class ClusterMetricsTest : public ::testing::Test {
 protected:
  ClusterMetricsTest()
      : scheduler_(Scheduler::Recover({}, {}, {clock_.Steady(), clock_.Now()}).value()) {
    cluster_.OnRecovered(scheduler_);
    jobs_.OnRecovered(scheduler_);
  }

  std::string Text() {
    return prometheus::TextSerializer().Serialize(metrics_.registry()->Collect());
  }
  void Step(const Event& event) {
    const Effects effects = scheduler_.Step(event, clock_.Steady(), clock_.Now());
    metrics_.OnChanged(scheduler_, effects.changed_jobs);
    cluster_.OnChanged(scheduler_, effects.changed_jobs);
    jobs_.OnChanged(scheduler_, effects.changed_jobs);
  }
  // Time passes in seconds, as the driver's tick sees it; workers stay in contact.
  void Pass(absl::Duration time) {
    for (; time > absl::ZeroDuration(); time -= absl::Seconds(1)) {
      clock_.Advance(absl::Seconds(1));
      for (const WorkerId& worker : workers_)
        Step(AgentHeardEvent{worker, scheduler_.workers().at(worker).session});
      Tick();
    }
  }
  void Tick() {
    Step(TickEvent{});
    metrics_.OnTick(scheduler_);
    cluster_.OnTick(scheduler_);
    jobs_.OnTick(scheduler_);
  }
  void AddWorker(const std::string& name, int slots) {
    AgentHelloEvent hello;
    hello.worker = WorkerId(name);
    hello.session = workers_.size() + 1;
    hello.incarnation = "1";
    hello.host = name;
    for (int i = 0; i < slots; ++i) hello.slots.push_back({i, "H100", 80});
    workers_.push_back(hello.worker);
    Step(hello);
  }
  void Submit(const std::string& id, const std::string& queue = "", int gpus = 1) {
    v1::JobSpec spec;
    spec.set_model("7b");
    spec.set_method("longlora");
    v1::Forecast forecast;
    forecast.set_bytes_per_rank(5000);
    auto payload = std::make_shared<JobPayload>();
    payload->resolved_spec = spec.SerializeAsString();
    payload->forecast = forecast.SerializeAsString();
    SubmitEvent event;
    event.job = JobId(id);
    event.spec.queue = queue;
    event.spec.gpus = gpus;
    event.spec.name = "a \"name\"";
    event.payload = payload;
    Step(event);
    Step(TickEvent{});
  }
  template <typename Fact>
  void Report(const std::string& id, Fact fact) {
    const Attempt attempt = *scheduler_.Find(JobId(id))->attempt;
    for (size_t i = 0; i < attempt.ranks.size(); ++i) {
      const WorkerId& worker = attempt.ranks[i].worker;
      Step(ReportEvent{worker, scheduler_.workers().at(worker).session, JobId(id), attempt.epoch,
                       static_cast<int>(i), ++sequence_, fact});
    }
  }
  void Steps(const std::string& id, std::vector<int64_t> numbers, double seconds) {
    TelemetryNews news;
    for (const int64_t number : numbers) {
      StepFacts& step = news.steps.emplace_back();
      step.step = number;
      step.step_seconds = seconds;
      step.mfu = 0.5;
    }
    metrics_.OnNews(JobId(id), news);
    jobs_.OnNews(JobId(id), news);
  }

  FakeClock clock_;
  Metrics metrics_{clock_};
  ClusterMetrics cluster_{*metrics_.registry(), clock_, "1.2"};
  JobMetrics jobs_{*metrics_.registry(), clock_};
  Scheduler scheduler_;
  std::vector<WorkerId> workers_;
  int64_t sequence_ = 0;
};

TEST_F(ClusterMetricsTest, QueuesAndSlots) {
  AddWorker("w1", 3);
  QueueRecord research;
  research.name = "research";
  research.weight = 2;
  research.quota_gpus = 4;
  Step(SetQueueEvent{research, "me"});
  Submit("job-1", "research", 2);
  Submit("job-2", "research", 3);
  Pass(absl::Seconds(7));
  EXPECT_THAT(Text(), HasSubstr("ll_queue_jobs{queue=\"research\",state=\"STARTING\"} 1\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_queue_jobs{queue=\"research\",state=\"QUEUED\"} 1\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_queue_pending_gpus{queue=\"research\"} 3\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_queue_held_gpus{queue=\"research\"} 2\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_queue_quota_gpus{queue=\"research\"} 4\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_queue_weight{queue=\"research\"} 2\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_queue_oldest_wait_seconds{queue=\"research\"} 6\n"));
  EXPECT_THAT(
      Text(),
      HasSubstr("ll_queue_oldest_job_info{gpus=\"3\",job_id=\"job-2\",queue=\"research\"} 1\n"));
  EXPECT_THAT(Text(), Not(HasSubstr("ll_queue_quota_gpus{queue=\"default\"}")));
  EXPECT_THAT(Text(), HasSubstr("ll_slots{kind=\"H100\",state=\"busy\"} 2\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_slots{kind=\"H100\",state=\"free\"} 1\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_slots{kind=\"H100\",state=\"lost\"} 0\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_coordinator_build_info{version=\"1.2\"} 1\n"));

  Step(CancelEvent{JobId("job-2"), "me"});
  Step(AgentGoneEvent{workers_[0], 1});
  workers_.clear();
  Pass(absl::Seconds(40));
  EXPECT_THAT(Text(), HasSubstr("ll_slots{kind=\"H100\",state=\"lost\"} 3\n"));
  EXPECT_THAT(Text(), Not(HasSubstr("queue=\"research\",state=\"QUEUED\"")));
  EXPECT_THAT(Text(), HasSubstr("ll_queue_oldest_wait_seconds{queue=\"research\"} 0\n"));
  EXPECT_THAT(Text(), Not(HasSubstr("ll_queue_oldest_job_info{")));
}

TEST_F(ClusterMetricsTest, AttemptsRestartsAndEndsAreCountedOnce) {
  AddWorker("w1", 1);
  Submit("job-1");
  EXPECT_THAT(Text(), HasSubstr("ll_job_attempts_total 1\n"));
  Report("job-1", TrainingFact{});
  RankExit crash;
  crash.signal = 9;
  crash.failure_class = FailureClass::kInfrastructure;
  Report("job-1", ExitFact{crash, ""});
  EXPECT_THAT(Text(), HasSubstr("ll_job_restarts_total{reason=\"failure\"} 1\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_job_restarts_total{reason=\"preemption\"} 0\n"));
  Pass(absl::Minutes(2));  // the back-off
  EXPECT_THAT(Text(), HasSubstr("ll_job_attempts_total 2\n"));
  Report("job-1", TrainingFact{});
  Report("job-1", ExitFact{});
  EXPECT_THAT(Text(),
              HasSubstr("ll_jobs_ended_total{failure_class=\"none\",state=\"SUCCEEDED\"} 1\n"));
  // A store that failed and was read again does not count it twice.
  cluster_.OnRecovered(scheduler_);
  cluster_.OnChanged(scheduler_, {JobId("job-1")});
  EXPECT_THAT(Text(),
              HasSubstr("ll_jobs_ended_total{failure_class=\"none\",state=\"SUCCEEDED\"} 1\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_job_attempts_total 2\n"));
}

TEST_F(ClusterMetricsTest, TheStoresCommits) {
  cluster_.OnServing(absl::OkStatus());
  cluster_.OnCommit(absl::Milliseconds(2), true);
  cluster_.OnCommit(absl::Seconds(2), false);
  EXPECT_THAT(Text(), HasSubstr("ll_store_commit_seconds_bucket{le=\"0.003\"} 1\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_store_commit_seconds_count 2\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_store_commits_failed_total 1\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_coordinator_serving 1\n"));
  cluster_.OnServing(absl::UnavailableError("a test"));
  EXPECT_THAT(Text(), HasSubstr("ll_coordinator_serving 0\n"));
}

TEST_F(ClusterMetricsTest, WhoAJobIsAndHowItFares) {
  AddWorker("w1", 2);
  Submit("job-1", "", 2);
  Tick();
  Report("job-1", TrainingFact{});
  Pass(absl::Seconds(10));
  EXPECT_THAT(Text(), HasSubstr("ll_job_info{attempt=\"1\",job_id=\"job-1\",kind=\"train\","
                                "method=\"longlora\",model=\"7b\",name=\"a \\\"name\\\"\","
                                "queue=\"default\"} 1\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_job_memory_forecast_bytes{job_id=\"job-1\"} 5000\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_job_goodput_ratio{job_id=\"job-1\"} 0\n"));
  const auto age = [this] {
    for (absl::string_view line : absl::StrSplit(Text(), '\n')) {
      double seconds;
      if (absl::ConsumePrefix(&line, "ll_job_checkpoint_age_seconds{job_id=\"job-1\"} ") &&
          absl::SimpleAtod(line, &seconds))
        return seconds;
    }
    return -1.0;
  };
  EXPECT_NEAR(age(), 10, 1);  // there is none yet: since it trains
  Report("job-1", CheckpointFact{4, "p", "m"});
  Pass(absl::Seconds(5));
  EXPECT_NEAR(age(), 4, 1);

  // 16 s with two slots: 8 s of steps, 2 s of them again.
  Steps("job-1", {1, 2, 3}, 2);
  Steps("job-1", {3}, 2);
  Pass(absl::Seconds(1));
  EXPECT_THAT(Text(), HasSubstr("ll_slots_trained_seconds_total 12\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_slots_repeated_seconds_total 4\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_slots_held_seconds_total 32\n"));
  EXPECT_THAT(Text(), HasSubstr("ll_job_goodput_ratio{job_id=\"job-1\"} 0.375\n"));

  Report("job-1", ExitFact{});
  Pass(absl::Minutes(4));
  EXPECT_THAT(Text(), HasSubstr("job-1"));
  EXPECT_THAT(Text(), HasSubstr("ll_slots_held_seconds_total 32\n"));
  Pass(absl::Minutes(2));
  EXPECT_THAT(Text(), Not(HasSubstr("job-1")));
}

// The bound of the whole page: 1,000 jobs in as many queues as get series, of which 100 run, and
// every call of the API once.
TEST_F(ClusterMetricsTest, SeriesGrowWithRunningJobsOnly) {
  const auto series = [this] {
    int count = 0;
    for (absl::string_view line : absl::StrSplit(Text(), '\n', absl::SkipEmpty()))
      count += line[0] != '#';
    return count;
  };
  for (int i = 0; i < 30; ++i)
    metrics_.OnRpc(absl::StrCat("/ll.v1.Jobs/M", i), "OK", absl::Milliseconds(1));
  for (int i = 0; i < 10; ++i) AddWorker(absl::StrCat("w", i), 10);
  for (int i = 0; i < 40; ++i) {
    QueueRecord queue;
    queue.name = absl::StrCat("q", i);
    Step(SetQueueEvent{queue, "me"});
  }
  Tick();
  const auto submit = [this](int from, int to) {
    for (int i = from; i < to; ++i) Submit(absl::StrCat("job-", i), absl::StrCat("q", i % 40));
  };
  submit(0, 100);
  Pass(absl::Seconds(2));
  for (int i = 0; i < 100; ++i) {
    Report(absl::StrCat("job-", i), TrainingFact{});
    Steps(absl::StrCat("job-", i), {1}, 1);
  }
  Pass(absl::Seconds(6));
  const int running = series();
  submit(100, 1000);
  Pass(absl::Seconds(6));
  // Of each queue: how many wait, and which one longest.
  EXPECT_LE(series() - running, 2 * (static_cast<int>(ClusterMetrics::kMaxQueues) + 1));
  RecordProperty("series", series());
  EXPECT_LE(series(), 2000);
  EXPECT_THAT(Text(), HasSubstr("queue=\"(others)\""));
  EXPECT_THAT(Text(), Not(HasSubstr("queue=\"q9\",state")));

  for (int i = 100; i < 1000; ++i) Step(CancelEvent{JobId(absl::StrCat("job-", i)), "me"});
  for (int i = 0; i < 100; ++i) Report(absl::StrCat("job-", i), ExitFact{});
  Pass(absl::Minutes(6));
  EXPECT_THAT(Text(), Not(HasSubstr("job_id=")));
}

}  // namespace
}  // namespace ll
