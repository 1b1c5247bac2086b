// The whole scheduler over a cluster without faults, where gangs end exactly as forecast: what a
// reservation promises is kept, for every seed.
#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/ids.h"
#include "coordinator/core/scheduler.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

class Cluster {
 public:
  explicit Cluster(uint64_t seed) : random_(seed) {
    SchedulerOptions options;
    options.shared_job_store = random_.Below(2) == 0;
    scheduler_ = std::make_unique<Scheduler>(
        Scheduler::Recover({}, options, {now_, absl::UnixEpoch()}).value());
    const int hosts = 1 + static_cast<int>(random_.Below(4));
    for (int i = 0; i < hosts; ++i) {
      AgentHelloEvent event;
      event.session = i + 1;
      event.worker = WorkerId(absl::StrCat("w", i));
      event.incarnation = "1";
      for (int s = 0; s < 4; ++s) event.slots.push_back({s, "cpu", 8});
      Step(event);
    }
    max_gpus_ = options.shared_job_store ? 4 * hosts : 4;
  }

  // Arrivals, ends, a tick.
  void RunSecond(int number) {
    now_ += absl::Seconds(1);
    if (number % 4 == 0 && number < 400) Submit(number);
    for (auto& [id, end] : std::map<JobId, absl::Duration>(ends_)) {
      if (end > now_) continue;
      ends_.erase(id);
      Report(id, ExitFact{});
    }
    for (int i = 0; i < 4; ++i) Step(AgentHeardEvent{WorkerId(absl::StrCat("w", i)), i + 1u});
    Step(TickEvent{});
    for (const Job* job : scheduler_->List({SIZE_MAX})) {
      if (job->promised_start != absl::InfiniteDuration())
        promised_.insert({job->id, job->promised_start});
    }
  }

  bool Idle() const { return ends_.empty() && started_.size() == static_cast<size_t>(submitted_); }

  std::map<JobId, absl::Duration> promised_, started_;  // first promise; start
  absl::Duration now_ = absl::ZeroDuration();

 private:
  void Submit(int number) {
    SubmitEvent event;
    event.job = JobId(absl::StrCat("job-", number));
    event.spec.gpus = 1 + static_cast<int>(random_.Below(max_gpus_));
    event.spec.forecast_duration = absl::Seconds(5 + static_cast<int64_t>(random_.Below(120)));
    event.payload = std::make_shared<JobPayload>();
    ++submitted_;
    Step(event);
  }

  template <typename Fact>
  void Report(const JobId& id, Fact fact) {
    const Attempt attempt = *scheduler_->Find(id)->attempt;
    for (size_t i = 0; i < attempt.ranks.size(); ++i) {
      const WorkerId& worker = attempt.ranks[i].worker;
      Step(ReportEvent{worker, scheduler_->workers().at(worker).session, id, attempt.epoch,
                       static_cast<int>(i), ++sequence_, fact});
    }
  }

  void Step(const Event& event) {
    const Effects effects = scheduler_->Step(event, now_, absl::UnixEpoch() + now_);
    scheduler_->CheckInvariants();
    for (const Record& record : effects.records) {
      const auto* put = std::get_if<PutTransition>(&record);
      if (put == nullptr || put->transition.state != JobState::kStarting) continue;
      started_[put->job] = now_;
      ends_[put->job] = now_ + scheduler_->Find(put->job)->spec.forecast_duration;
      to_train_.push_back(put->job);
    }
    while (!to_train_.empty()) {
      const JobId id = to_train_.back();
      to_train_.pop_back();
      Report(id, TrainingFact{});
    }
  }

  SeededRandom random_;
  std::unique_ptr<Scheduler> scheduler_;
  std::map<JobId, absl::Duration> ends_;
  std::vector<JobId> to_train_;
  int max_gpus_ = 0, submitted_ = 0;
  int64_t sequence_ = 0;
};

TEST(SchedulePass, KeepsEveryReservationWhenForecastsHold) {
  int promises = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Cluster cluster(seed);
    for (int second = 0; second < 10'000 && !(second > 400 && cluster.Idle()); ++second)
      cluster.RunSecond(second);
    ASSERT_TRUE(cluster.Idle()) << "seed " << seed << ": not every job has run";
    for (const auto& [id, promised] : cluster.promised_) {
      ++promises;
      // Within the second in which the cluster moves.
      EXPECT_LE(cluster.started_.at(id), promised + absl::Seconds(1))
          << "seed " << seed << ": " << id;
    }
  }
  EXPECT_GT(promises, 200);
}

// Behind more jobs that can never start than are looked at, the reason is given without a start;
// behind few of them with it. The answer is the driver's thread's, so the look is bounded.
TEST(SchedulePass, TheReasonOfAJobBehindThousandsThatCannotStart) {
  for (const int stuck : {100, 3000}) {
    SchedulerOptions options;
    options.shared_job_store = true;
    Scheduler scheduler =
        Scheduler::Recover({}, options, {absl::ZeroDuration(), absl::UnixEpoch()}).value();
    const auto step = [&](const Event& event) {
      scheduler.Step(event, absl::ZeroDuration(), absl::UnixEpoch());
    };
    const auto submit = [&](const std::string& id, int priority, int64_t bytes) {
      SubmitEvent event;
      event.job = JobId(id);
      event.spec.priority = priority;
      event.spec.required_slot_bytes = bytes;
      event.spec.forecast_duration = absl::Minutes(10);
      event.payload = std::make_shared<JobPayload>();
      step(event);
    };
    for (int i = 0; i < 2; ++i) {
      AgentHelloEvent hello;
      hello.session = i + 1;
      hello.worker = WorkerId(absl::StrCat("w", i));
      hello.incarnation = "1";
      hello.slots.push_back({0, "cpu", i == 0 ? 8 : 100'000});
      step(hello);
    }
    step(CordonWorkerEvent{WorkerId("w1"), Cordon::kCordon, "op", ""});
    submit("runs", 0, 8);
    ASSERT_EQ(scheduler.Find(JobId("runs"))->state, JobState::kStarting);
    for (int i = 0; i < stuck; ++i) submit(absl::StrCat("stuck-", i), 5, 100 + i);
    submit("next", 0, 8);
    submit("last", 0, 8);
    const std::string why = scheduler.Why(JobId("last")).value();
    const bool known = stuck < 2000;
    EXPECT_EQ(why.find("expected to start in") != std::string::npos, known) << why;
    EXPECT_EQ(why.find("waits behind next") != std::string::npos, known) << why;
    EXPECT_EQ(scheduler.PredictedWait(*scheduler.Find(JobId("last"))).has_value(), known);
  }
}

// New workers by the hundred do not bring a new pool each: the next tick knows them all.
TEST(SchedulePass, WorkersThatComeTogetherAreThereFromTheNextTickOn) {
  constexpr int kWorkers = 100;
  SchedulerOptions options;
  options.shared_job_store = true;
  Scheduler scheduler =
      Scheduler::Recover({}, options, {absl::ZeroDuration(), absl::UnixEpoch()}).value();
  const auto step = [&](const Event& event, int second) {
    scheduler.Step(event, absl::Seconds(second), absl::UnixEpoch() + absl::Seconds(second));
    scheduler.CheckInvariants();
  };
  SubmitEvent submit;
  submit.job = JobId("all");
  submit.spec.gpus = kWorkers;
  submit.payload = std::make_shared<JobPayload>();
  step(submit, 0);
  for (int i = 0; i < kWorkers; ++i) {
    AgentHelloEvent hello;
    hello.session = i + 1;
    hello.worker = WorkerId(absl::StrCat("w", i));
    hello.incarnation = "1";
    hello.slots.push_back({0, "cpu", 8});
    step(hello, 0);
  }
  EXPECT_EQ(scheduler.Find(JobId("all"))->state, JobState::kQueued);
  step(TickEvent{}, 1);
  EXPECT_EQ(scheduler.Find(JobId("all"))->state, JobState::kStarting);
  // Known ones that fall silent together and are heard again bring no new pool.
  for (int second = 2; second < 40; ++second) step(TickEvent{}, second);
  EXPECT_TRUE(scheduler.Find(JobId("all"))->headless);
  for (int i = 0; i < kWorkers; ++i) {
    EXPECT_TRUE(scheduler.Find(JobId("all"))->headless);
    step(AgentHeardEvent{WorkerId(absl::StrCat("w", i)), static_cast<uint64_t>(i + 1)}, 40);
  }
  EXPECT_FALSE(scheduler.Find(JobId("all"))->headless);
}

}  // namespace
}  // namespace ll
