// A year of schedules: the production core and store records under random crashes, absences and
// jumps of the wall clock, through both daylight-saving changes. Every civil time of a rule is
// decided exactly once: fired with one job, or recorded as left out with its reason.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/cron.h"
#include "base/ids.h"
#include "base/status_matchers.h"
#include "coordinator/core/due_fires.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/store/mem_store.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

absl::Time At(int year, int month, int day) {
  return absl::FromCivil(absl::CivilSecond(year, month, day), absl::UTCTimeZone());
}

// The fire times of the year, and a month more, by the stated rule, found without base/cron's
// search: every civil minute of a fixed time of day, moved behind a jump of the clock, and the
// first of two.
std::vector<absl::Time> TimesOfDay(int hour, int minute, const absl::TimeZone& zone) {
  std::vector<absl::Time> times;
  for (absl::CivilDay day(2026, 1, 1); day < absl::CivilDay(2027, 2, 1); ++day) {
    const absl::CivilMinute wanted(day.year(), day.month(), day.day(), hour, minute);
    absl::Time at = absl::FromCivil(day, zone);
    while (absl::CivilMinute(zone.At(at).cs) < wanted) at += absl::Minutes(1);
    times.push_back(at);
  }
  return times;
}

// The real minutes at which the clock on the wall shows the minute of an hour.
std::vector<absl::Time> TimesOfHour(int minute, const absl::TimeZone& zone) {
  std::vector<absl::Time> times;
  const absl::Time end = absl::FromCivil(absl::CivilDay(2027, 2, 1), zone);
  for (absl::Time at = absl::FromCivil(absl::CivilDay(2026, 1, 1), zone); at < end;
       at += absl::Minutes(1)) {
    if (zone.At(at).cs.minute() == minute) times.push_back(at);
  }
  return times;
}

struct Plan {
  ScheduleRecord record;
  std::vector<absl::Time> times;
};

// What the records of the year's runs say, collected as they become durable.
struct Decision {
  bool fired = false;
  std::string reason;
  absl::Time decided;
};
using Seen = std::map<absl::Time, Decision>;  // by fire time; ranges are spread out

class Year {
 public:
  explicit Year(uint64_t seed) : random_(seed) {
    const auto add = [this](const char* name, const std::string& cron, const char* zone,
                            MissedPolicy missed, OverlapPolicy overlap, auto make) {
      Plan plan;
      plan.record.name = name;
      plan.record.user = "ann";
      plan.record.cron = cron;
      plan.record.time_zone = zone;
      plan.record.missed = missed;
      plan.record.overlap = overlap;
      plan.record.history_limit = kMaxHistoryLimit;
      plan.record.spec.ttl_after_finished = absl::Hours(1);
      plan.record.payload = std::make_shared<JobPayload>();
      plan.times = make(LoadZone(zone).value());
      plans_[name] = std::move(plan);
    };
    const auto daily = [](int hour, int minute) {
      return [=](const absl::TimeZone& zone) { return TimesOfDay(hour, minute, zone); };
    };
    const auto hourly = [](const absl::TimeZone& zone) { return TimesOfHour(30, zone); };
    using M = MissedPolicy;
    using O = OverlapPolicy;
    add("berlin-last", "30 2 * * *", "Europe/Berlin", M::kLast, O::kSkip, daily(2, 30));
    add("berlin-hourly", "30 * * * *", "Europe/Berlin", M::kLast, O::kQueue, hourly);
    add("york-skip", "30 2 * * *", "America/New_York", M::kSkip, O::kCancelOld, daily(2, 30));
    add("york-twice", "30 1 * * *", "America/New_York", M::kAll, O::kQueue, daily(1, 30));
    add("howe-all", "15 2 * * *", "Australia/Lord_Howe", M::kAll, O::kCancelOld, daily(2, 15));
  }

  void Run() {
    Restart();
    for (const auto& [name, plan] : plans_) Step(SetScheduleEvent{plan.record});
    for (auto& [name, plan] : plans_) {
      // Those that have passed when the schedule is made are not its.
      std::erase_if(plan.times, [this](absl::Time time) { return time <= wall_; });
    }
    absl::Time furthest = wall_;
    while (wall_ < At(2027, 1, 3)) {
      Turn();
      furthest = std::max(furthest, wall_);
    }
    for (auto& [name, plan] : plans_)
      std::erase_if(plan.times, [furthest](absl::Time time) { return time > furthest; });
  }

  std::map<std::string, Plan> plans_;
  std::map<std::string, Seen> seen_;
  int crashes_ = 0, jumps_ = 0, absences_ = 0;

 private:
  bool Chance(double p) { return static_cast<double>(random_.Below(1'000'000)) < p * 1e6; }
  absl::Duration Between(absl::Duration low, absl::Duration high) {
    return low +
           absl::Seconds(static_cast<int64_t>(random_.Below(absl::ToInt64Seconds(high - low) + 1)));
  }

  void Restart() {
    SchedulerOptions options;
    options.nonce_seed = absl::StrCat("life ", ++life_);
    auto recovered = Scheduler::Recover(store_.LoadAll().value(), options, {steady_, wall_});
    ASSERT_TRUE(recovered.ok()) << recovered.status();
    scheduler_ = std::make_unique<Scheduler>(*std::move(recovered));
    scheduler_->CheckInvariants();
  }

  // As the driver: persist, then let the world see it. A crash may come before or after the commit.
  void Step(const Event& event) {
    const Effects effects = scheduler_->Step(event, {steady_, wall_});
    ASSERT_TRUE(effects.reply.status.ok()) << effects.reply.status;
    if (Chance(0.02) && !effects.records.empty()) {
      ++crashes_;
      if (std::holds_alternative<TickEvent>(event)) return Restart();  // all of it is lost
    }
    ASSERT_TRUE(store_.Commit(effects.records).ok());
    for (const Record& record : effects.records) {
      if (const auto* put = std::get_if<PutScheduleRun>(&record)) Note(put->schedule, put->run);
    }
    if (Chance(0.02) && !effects.records.empty()) {
      ++crashes_;
      Restart();
    }
  }

  void Note(const std::string& name, const ScheduleRun& run) {
    if (run.judgement.result != RunResult::kPending) return;  // the same again, judged
    Seen& seen = seen_[name];
    const std::string where = absl::StrCat(name, " at ", absl::FormatTime(run.fire_time));
    EXPECT_FALSE(run.fires_more) << where;
    int64_t covered = 0;
    for (absl::Time time : plans_.at(name).times) {
      if (time < run.first_fire_time || time > run.fire_time) continue;
      ++covered;
      EXPECT_LE(time, wall_) << where << " before its time";
      const bool fresh = seen.insert({time, {!run.job.empty(), run.reason, run.decided}}).second;
      EXPECT_TRUE(fresh) << where << " twice";
      if (!run.job.empty()) {
        EXPECT_NE(scheduler_->Find(run.job), nullptr) << where;
      }
    }
    if (!run.job.empty()) CheckOverlap(name, run.job);
    EXPECT_EQ(covered, run.fires) << where << " stands for other times than the rule's";
    if (run.job.empty()) {
      EXPECT_FALSE(run.reason.empty()) << where;
    }
  }

  // Of the schedule's unfinished jobs the new one is alone, or waits for all of them.
  void CheckOverlap(const std::string& name, const JobId& fresh) {
    const Job* job = scheduler_->Find(fresh);
    if (job == nullptr) return;
    for (const auto& [number, run] : scheduler_->schedules().at(name).runs) {
      const Job* other = run.job.empty() || run.job == fresh ? nullptr : scheduler_->Find(run.job);
      // A fire of the same step may stand behind this one.
      if (other == nullptr || IsTerminal(other->state) || other->sequence > job->sequence) continue;
      const auto& waits = job->waiting_for;
      EXPECT_TRUE(plans_.at(name).record.overlap != OverlapPolicy::kSkip &&
                  std::find(waits.begin(), waits.end(), other->id) != waits.end())
          << fresh << " beside " << other->id;
    }
  }

  // Some time passes, with or without the coordinator; jobs end; the clock may jump.
  void Turn() {
    absl::Duration gap = Chance(0.003)  ? Between(absl::Hours(1), absl::Hours(60))
                         : Chance(0.05) ? Between(absl::Minutes(2), absl::Minutes(50))
                                        : Between(absl::Seconds(1), absl::Minutes(10));
    if (gap > absl::Hours(1)) ++absences_;
    // Mostly the coordinator is there when a fire comes.
    for (const auto& [name, schedule] : scheduler_->schedules()) {
      const absl::Duration due = schedule.record.next_fire - wall_;
      if (due > absl::ZeroDuration() && due < gap && gap < absl::Hours(1) && Chance(0.8))
        gap = due + Between(absl::ZeroDuration(), absl::Seconds(50));
    }
    steady_ += gap;
    wall_ += gap;
    if (Chance(0.003)) {
      ++jumps_;
      const absl::Duration jump = Between(absl::Seconds(1), absl::Hours(3));
      wall_ += Chance(0.5) ? jump : -jump;
    }
    Step(TickEvent{});
    for (const RunKey& key : std::set<RunKey>(scheduler_->to_judge()))
      Step(JudgeRunEvent{key.first, key.second, {}});
    std::vector<JobId> ends;  // a crash invalidates the jobs
    for (const Job* job : scheduler_->List({50})) {
      if (!IsTerminal(job->state) && Chance(0.6)) ends.push_back(job->id);
    }
    for (const JobId& job : ends) Step(CancelEvent{job, "ann", ""});
  }

  SeededRandom random_;
  MemStore store_;
  std::unique_ptr<Scheduler> scheduler_;
  int life_ = 0;
  absl::Duration steady_ = absl::ZeroDuration();
  absl::Time wall_ = At(2026, 1, 1) + absl::Hours(20);
};

// What the policy says of each time, given when it was decided.
void CheckPolicy(const Plan& plan, const Seen& seen) {
  int fired = 0, missed = 0;
  for (size_t i = 0; i < plan.times.size(); ++i) {
    const auto found = seen.find(plan.times[i]);
    const std::string where =
        absl::StrCat(plan.record.name, " at ", absl::FormatTime(plan.times[i]));
    ASSERT_NE(found, seen.end()) << where << " was never decided";
    const Decision& decision = found->second;
    const bool left_out_as_missed = decision.reason.rfind("missed: ", 0) == 0;
    fired += decision.fired;
    missed += left_out_as_missed;
    const absl::Duration late = decision.decided - plan.times[i];
    const bool newest = i + 1 == plan.times.size() || plan.times[i + 1] > decision.decided;
    switch (plan.record.missed) {
      case MissedPolicy::kLast:
        EXPECT_EQ(left_out_as_missed, !newest) << where;
        break;
      case MissedPolicy::kSkip:
        EXPECT_EQ(left_out_as_missed, late >= kFireOnTime) << where;
        break;
      case MissedPolicy::kAll:
        EXPECT_FALSE(left_out_as_missed) << where;
        break;
    }
    // The others are left out for an earlier run that goes on, never without a reason.
    if (!decision.fired && !left_out_as_missed) {
      EXPECT_EQ(plan.record.overlap, OverlapPolicy::kSkip) << where << ": " << decision.reason;
      EXPECT_EQ(decision.reason.rfind("overlaps with ", 0), 0u) << where << ": " << decision.reason;
    }
  }
  EXPECT_EQ(seen.size(), plan.times.size()) << plan.record.name;
  std::printf("%s: %zu times, %d fired, %d missed\n", plan.record.name.c_str(), plan.times.size(),
              fired, missed);
  EXPECT_GT(fired, 0);
}

TEST(ScheduleYear, EveryCivilTimeIsDecidedExactlyOnce) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    std::printf("seed %d\n", static_cast<int>(seed));
    Year year(seed);
    year.Run();
    for (const auto& [name, plan] : year.plans_) CheckPolicy(plan, year.seen_[name]);
    std::printf("%d crashes, %d clock jumps, %d absences\n", year.crashes_, year.jumps_,
                year.absences_);
    EXPECT_GT(year.crashes_, 100);
    EXPECT_GT(year.jumps_, 100);
    EXPECT_GT(year.absences_, 50);
  }
}

// A time every day, whatever the clock does: 02:30 exists, is jumped over, or comes twice.
TEST(ScheduleYear, TheOracleHasOneTimeADay) {
  for (const char* zone : {"Europe/Berlin", "America/New_York", "Australia/Lord_Howe"}) {
    EXPECT_EQ(TimesOfDay(2, 30, LoadZone(zone).value()).size(), 365u + 31);
  }
  EXPECT_EQ(TimesOfHour(30, LoadZone("Europe/Berlin").value()).size(), (365u + 31) * 24);
}

}  // namespace
}  // namespace ll
