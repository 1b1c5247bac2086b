// A tenant that tries everything against its limits, in one queue with a quota: swarms of small
// jobs, all at once and one by one, requests repeated, requeue loops (crashes, pauses), elastic
// growth, shares borrowed and not given back in time, priorities, deadlines and ttls in the past
// while the wall clock jumps. After each step what it has is within what it may have; and who lends
// gets back.
#include <algorithm>
#include <iostream>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/ids.h"
#include "coordinator/core/job_state.h"
#include "coordinator/core/retry.h"
#include "coordinator/core/scheduler.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

constexpr int kHosts = 3, kSlots = 8;
constexpr int kRedQuota = 6, kRedMost = 12, kRedJobs = 5;
constexpr size_t kRedUnfinished = 20;
// Of a lender within its own quota: twice the coordinator's min_runtime and the grace to write a
// checkpoint, for what gives way first may not be enough.
const absl::Duration kPatience = 2 * absl::Minutes(10 + 5);

class Game {
 public:
  explicit Game(uint64_t seed) : random_(seed) {
    SchedulerOptions options;
    options.shared_job_store = true;
    options.lemon_jobs = 0;  // the hosts are not to blame
    scheduler_ = std::make_unique<Scheduler>(Scheduler::Recover({}, options, Now()).value());
    for (int i = 0; i < kHosts; ++i) {
      AgentHelloEvent event;
      event.session = static_cast<uint64_t>(i) + 1;
      event.worker = WorkerId(absl::StrCat("w", i));
      event.incarnation = "1";
      for (int s = 0; s < kSlots; ++s) event.slots.push_back({s, "H100", 80'000'000'000});
      Step(event);
    }
    Step(SetQueueEvent{
        {.name = "red", .quota_gpus = kRedQuota, .max_gpus = kRedMost, .max_jobs = kRedJobs}});
    Step(SetQueueEvent{{.name = "blue", .quota_gpus = kHosts * kSlots - kRedQuota}});
  }

  void RunSecond() {
    steady_ += absl::Seconds(1);
    if (random_.Below(40) == 0)  // the wall clock is set, up to a day to and fro
      wall_ += absl::Seconds(static_cast<int64_t>(random_.Below(172'800)) - 86'400);
    wall_ += absl::Seconds(1);
    // Ten minutes of frenzy, then fifty in which it sits on what it has.
    const bool frenzy = absl::ToInt64Minutes(steady_) / 10 % 6 == 0;
    const uint64_t tries = frenzy ? random_.Below(4) : 0;
    for (uint64_t i = 0; i < tries; ++i) Red();
    Blue();
    Ranks();
    for (int i = 0; i < kHosts; ++i)
      Step(AgentHeardEvent{WorkerId(absl::StrCat("w", i)), static_cast<uint64_t>(i) + 1});
    Step(TickEvent{});
    scheduler_->CheckInvariants();
  }

  int refused = 0, accepted = 0, most_gpus = 0, blue_started = 0, red_started = 0;
  size_t most_unfinished = 0;
  absl::Duration longest_wait;

 private:
  struct Running {
    int64_t epoch = 0;
    absl::Duration ends = absl::InfiniteDuration();
    RankExit exit;
  };

  StepTime Now() const { return {steady_, wall_}; }
  bool Chance(int percent) { return random_.Below(100) < static_cast<uint64_t>(percent); }

  void Step(const Event& event) {
    const Effects effects = scheduler_->Step(event, Now());
    (std::holds_alternative<SubmitAllEvent>(event) && !effects.reply.status.ok() ? refused
                                                                                 : accepted)++;
    for (const Send& send : effects.sends) {
      if (const auto* start = std::get_if<StartGangOrder>(&send.order)) {
        Running& running = running_[start->job];
        if (running.epoch == start->epoch) continue;
        running = {start->epoch};
        fresh_.push_back(start->job);
      } else if (const auto* stop = std::get_if<StopGangOrder>(&send.order)) {
        const auto it = running_.find(stop->job);
        if (it == running_.end() || it->second.epoch != stop->epoch) continue;
        // A trainer of red's may ignore the wish; its agent kills it after the grace.
        const bool stubborn = stop->checkpoint && Chance(50);
        it->second.exit = {};
        it->second.exit.ordered = true;
        if (stop->checkpoint && !stubborn) it->second.exit.code = kExitCheckpointed;
        if (!stop->checkpoint || stubborn) it->second.exit.signal = 9;
        it->second.ends =
            std::min(it->second.ends, steady_ + (stubborn ? stop->grace : absl::Seconds(1)));
      }
    }
    CheckLimits();
  }

  // The promise of this file.
  void CheckLimits() {
    int gpus = 0, running = 0;
    size_t unfinished = 0;
    for (const auto& [name, worker] : scheduler_->workers()) {
      for (const auto& [slot, use] : worker.uses) {
        const Job* job = scheduler_->Find(use.job);
        gpus += job != nullptr && job->spec.queue == "red";
      }
    }
    for (const Job* job : scheduler_->List({.limit = SIZE_MAX})) {
      if (job->tenant != "red") continue;
      unfinished += !IsTerminal(job->state);
      running += HoldsSlots(job->state);
    }
    most_gpus = std::max(most_gpus, gpus);
    most_unfinished = std::max(most_unfinished, unfinished);
    ASSERT_LE(gpus, kRedMost);
    ASSERT_LE(running, kRedJobs);
    ASSERT_LE(unfinished, kRedUnfinished);
  }

  Submission RedJob() {
    Submission out{JobId(absl::StrCat("red-", ++made_)), {}, std::make_shared<JobPayload>()};
    CoreSpec& spec = out.spec;
    spec.queue = "red";
    spec.gpus = Chance(60) ? 1 : 1 + static_cast<int>(random_.Below(16));
    if (Chance(40)) {
      spec.max_gpus = spec.gpus + 1 + static_cast<int>(random_.Below(24));
      spec.batch_rows = 48;
    }
    spec.priority = static_cast<int>(random_.Below(101));
    spec.max_retries = static_cast<int>(random_.Below(20));
    spec.forecast_duration = absl::Seconds(1 + static_cast<int64_t>(random_.Below(3600)));
    if (Chance(20))
      spec.deadline = wall_ + absl::Seconds(static_cast<int64_t>(random_.Below(7200)) - 3600);
    if (Chance(20))
      spec.ttl_after_finished = absl::Seconds(static_cast<int64_t>(random_.Below(60)));
    if (Chance(50)) spec.min_runtime = absl::Hours(24 * 365);  // "never preempt me"
    if (Chance(20)) spec.max_runtime = absl::Seconds(1 + static_cast<int64_t>(random_.Below(600)));
    return out;
  }

  void Red() {
    const Access access{.tenant = "red", .all = false};
    const std::vector<const Job*> mine = scheduler_->List({.limit = 200, .access = access});
    const JobId any = mine.empty() ? JobId("none") : mine[random_.Below(mine.size())]->id;
    switch (random_.Below(8)) {
      case 0:
      case 1:
      case 2: {
        SubmitAllEvent event;
        event.user = absl::StrCat("u", random_.Below(3));
        event.access = access;
        event.quota.unfinished_jobs = kRedUnfinished;
        if (Chance(30)) event.request_id = absl::StrCat("r", random_.Below(5));
        const size_t count = Chance(70) ? 1 : 1 + random_.Below(30);
        for (size_t i = 0; i < count; ++i) event.jobs.push_back(RedJob());
        return Step(event);
      }
      case 3:
        return Step(CancelEvent{any, "u0", "", access});
      case 4:
        return Step(PauseEvent{any, "u0", access});
      case 5:
      case 6:
        return Step(ResumeEvent{any, "u0", access});
      default:
        return;
    }
  }

  // Blue asks for one job at a time, within its quota, and waits.
  void Blue() {
    if (!blue_.value().empty()) {
      const Job* job = scheduler_->Find(blue_);
      const absl::Duration waited = steady_ - blue_since_;
      if (job != nullptr && job->state == JobState::kQueued) {
        longest_wait = std::max(longest_wait, waited);
        ASSERT_LE(waited, kPatience)
            << "blue does not get back what it lent: " << scheduler_->Why(blue_).value_or("");
        return;
      }
      if (job != nullptr && !IsTerminal(job->state)) return;
    }
    if (!Chance(1)) return;
    SubmitAllEvent event;
    event.user = "bea";
    event.access = {.tenant = "blue", .all = false};
    blue_ = JobId(absl::StrCat("blue-", ++made_));
    blue_since_ = steady_;
    event.jobs.push_back({blue_, {}, std::make_shared<JobPayload>()});
    event.jobs[0].spec.queue = "blue";
    event.jobs[0].spec.gpus = 8 + static_cast<int>(random_.Below(11));
    event.jobs[0].spec.forecast_duration = absl::Minutes(5);
    Step(event);
  }

  template <typename Fact>
  void ReportAll(const JobId& job, int64_t epoch, const Fact& fact) {
    const Job* found = scheduler_->Find(job);
    if (found == nullptr || !found->attempt || found->attempt->epoch != epoch) return;
    const std::vector<Rank> ranks = found->attempt->ranks;
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      if (ranks[rank].phase == RankPhase::kExited) continue;
      ReportEvent event{
          ranks[rank].worker,     scheduler_->workers().at(ranks[rank].worker).session, job, epoch,
          static_cast<int>(rank), ++sequence_[{job, ranks[rank].worker, epoch}]};
      event.fact = fact;
      Step(event);
    }
  }

  void Ranks() {
    for (const JobId& job : std::exchange(fresh_, {})) {
      const bool blue = job.value().rfind("blue", 0) == 0;
      (blue ? blue_started : red_started)++;
      Running& running = running_[job];
      ReportAll(job, running.epoch, TrainingFact{});
      absl::Duration length = absl::Seconds(1 + static_cast<int64_t>(random_.Below(300)));
      if (!blue && Chance(60)) length = absl::InfiniteDuration();  // a hog
      running.ends = std::min(running.ends, steady_ + length);
      // Red's crash now and then: requeue loops.
      if (!blue && running.exit.signal == 0 && running.exit.code == 0 && Chance(50)) {
        running.exit.code = 30;
        running.exit.failure_class = FailureClass::kInfrastructure;
      }
    }
    for (const auto& [job, running] : std::map<JobId, Running>(running_)) {
      if (running.ends > steady_) continue;
      running_.erase(job);
      if (running.exit.code == kExitCheckpointed)
        ReportAll(job, running.epoch, CheckpointFact{running.epoch, "path", "hash"});
      ReportAll(job, running.epoch, ExitFact{running.exit, ""});
    }
  }

  SeededRandom random_;
  absl::Duration steady_ = absl::ZeroDuration();
  absl::Time wall_ = absl::FromUnixSeconds(1'800'000'000);
  std::unique_ptr<Scheduler> scheduler_;
  std::map<JobId, Running> running_;
  std::vector<JobId> fresh_;
  std::map<std::tuple<JobId, WorkerId, int64_t>, int64_t> sequence_;
  int64_t made_ = 0;
  JobId blue_;
  absl::Duration blue_since_;
};

TEST(QuotaGaming, NoTrickGivesMoreThanTheLimits) {
  const char* given = getenv("LL_SEED");
  const uint64_t first = given == nullptr ? SystemRandom().Below(1'000'000) : std::stoull(given);
  std::cout << "seed " << first << " (LL_SEED=" << first << " repeats it)\n";
  for (uint64_t seed = first; seed < first + 5; ++seed) {
    Game game(seed);
    for (int second = 0; second < 7200; ++second) {
      game.RunSecond();
      if (testing::Test::HasFatalFailure()) {
        FAIL() << "seed " << seed << ", second " << second;
      }
    }
    // It was a game: the limits were reached, and both got on.
    EXPECT_EQ(game.most_unfinished, kRedUnfinished) << seed;
    EXPECT_GT(game.most_gpus, kRedQuota) << seed << ": nothing was borrowed";
    EXPECT_GT(game.refused, 0) << seed;
    EXPECT_GT(game.red_started, 10) << seed;
    EXPECT_GT(game.blue_started, 0) << seed;
    std::cout << "seed " << seed << ": at most " << game.most_gpus << " GPUs, "
              << game.most_unfinished << " unfinished; " << game.red_started << " starts, "
              << game.blue_started << " of the lender, which waited at most " << game.longest_wait
              << "\n";
  }
}

}  // namespace
}  // namespace ll
