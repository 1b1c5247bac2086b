// R23: three days of schedules in six minutes. The coordinator's wall clock runs 720 times as fast
// (libfaketime; run.py installs it), its monotonic one as always; it is killed again and again on
// the first half of the way, and left alone on the second, where memory and descriptors are
// watched.
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_matchers.h"
#include "proto/schedules.grpc.pb.h"
#include "rpc/status.h"
#include "tests/chaos/chaos.h"
#include "tests/cluster/cluster.h"

namespace ll {
namespace {

constexpr int kFaster = 720;
constexpr absl::Duration kBeat = absl::Seconds(12);  // between two looks; real

// Resident megabytes and open descriptors of a process.
struct Use {
  double mb = 0;
  int64_t descriptors = 0;
};
Use UseOf(pid_t pid) {
  std::ifstream statm(absl::StrCat("/proc/", pid, "/statm"));
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  std::error_code ignored;
  const std::filesystem::directory_iterator fds(absl::StrCat("/proc/", pid, "/fd"), ignored);
  return {static_cast<double>(resident * sysconf(_SC_PAGESIZE)) / 1e6,
          std::distance(fds, std::filesystem::directory_iterator())};
}

class NightlyTest : public testing::Test {
 protected:
  absl::Time FakeNow() const { return fake_start_ + kFaster * (absl::Now() - real_start_); }

  void Start() {
    CoordinatorHost host;
    host.environment = {{"LD_PRELOAD", getenv("LL_FAKETIME")},
                        {"TZ", "UTC"},
                        {"FAKETIME", absl::StrCat(absl::FormatTime("@%Y-%m-%d %H:%M:%S", FakeNow(),
                                                                   absl::UTCTimeZone()),
                                                  " x", kFaster)},
                        {"FAKETIME_DONT_FAKE_MONOTONIC", "1"},
                        {"DONT_FAKE_MONOTONIC", "1"}};
    cluster_.SetCoordinatorHost(host);
    cluster_.StartCoordinator({"--lease-seconds", "3", "--heartbeat-seconds", "0.2"});
    schedules_ = v1::Schedules::NewStub(cluster_.Connect());
  }
  void Create(const std::string& name, const std::string& cron, const std::string& zone,
              const std::string& overlap, int64_t history) {
    v1::CreateScheduleRequest request;
    v1::Schedule& schedule = *request.mutable_schedule();
    schedule.set_name(name);
    schedule.set_cron(cron);
    schedule.set_time_zone(zone);
    schedule.set_missed(overlap == "skip" ? "last" : "all");
    schedule.set_overlap(overlap);
    schedule.set_history_limit(history);
    v1::JobSpec& spec = *schedule.mutable_spec();
    spec = cluster_.TrainSpec(1, 3);
    spec.set_ttl_after_finished(6 * 3600);
    (*spec.mutable_labels())["fake.step_ms"] = "5";
    v1::Schedule made;
    LL_ASSERT_OK(FromGrpcStatus(schedules_->Create(Context().get(), request, &made)));
  }
  v1::Schedule Get(const std::string& name) {
    v1::GetScheduleRequest request;
    request.set_name(name);
    v1::Schedule schedule;
    EXPECT_THAT(FromGrpcStatus(schedules_->Get(Context().get(), request, &schedule)), IsOk());
    return schedule;
  }
  // Every time of the schedule between the two has one record with a job of its own.
  void ExpectEachOnce(const std::string& name, const std::vector<absl::Time>& times) {
    std::multiset<int64_t> fired;
    std::set<std::string> jobs;
    const v1::Schedule schedule = Get(name);
    for (const v1::ScheduleRun& run : schedule.runs()) {
      EXPECT_EQ(run.fires(), 1) << run.ShortDebugString();
      EXPECT_FALSE(run.job_id().empty()) << run.ShortDebugString();
      EXPECT_TRUE(jobs.insert(run.job_id()).second) << "a job of two fires";
      fired.insert(run.fire_time().seconds());
    }
    for (const absl::Time time : times)
      EXPECT_EQ(fired.count(absl::ToUnixSeconds(time)), 1u) << name << " at " << time;
    fires_checked_ += static_cast<int>(times.size());
  }

  Cluster cluster_;
  std::unique_ptr<v1::Schedules::Stub> schedules_;
  // A Friday evening: both nights that follow are Berlin's summer time.
  const absl::Time fake_start_ =
      absl::FromCivil(absl::CivilSecond(2026, 7, 3, 18, 10, 0), absl::UTCTimeZone());
  absl::Time real_start_;
  int fires_checked_ = 0;
};

TEST_F(NightlyTest, NightlyRunsForThreeDays) {
  ASSERT_NE(getenv("LL_FAKETIME"), nullptr)
      << "run this by tests/chaos/run.py, which installs libfaketime";
  const absl::Duration length = absl::Hours(Size(8, 72));
  real_start_ = absl::Now();
  Start();
  WorkerConfig worker;
  worker.cpu_slots = 4;
  cluster_.StartWorker(worker);
  cluster_.AwaitWorkers(1);
  Create("nightly", "30 2 * * *", "Europe/Berlin", "queue", 30);
  Create("hourly", "0 * * * *", "UTC", "queue", 100);
  Create("quarterly", "*/15 * * * *", "UTC", "skip", 10);
  const absl::Time begun = FakeNow();
  const pid_t agent = cluster_.worker_pid("w1");

  int kills = 0;
  while (FakeNow() < fake_start_ + length / 2) {
    absl::SleepFor(absl::Milliseconds(4000 + static_cast<int64_t>(cluster_.random().Below(8000))));
    cluster_.KillCoordinator();
    Start();
    cluster_.AwaitWorkers(1);
    ++kills;
  }
  std::vector<Use> coordinator_use, agent_use;
  while (FakeNow() < fake_start_ + length) {
    absl::SleepFor(kBeat);
    coordinator_use.push_back(UseOf(cluster_.coordinator_pid()));
    agent_use.push_back(UseOf(agent));
    EXPECT_LE(Get("quarterly").runs_size(), 12);  // the newest ten, and what is not over
  }
  const absl::Time ended = FakeNow();
  absl::SleepFor(absl::Seconds(3));  // what was due is decided

  std::vector<absl::Time> hours, nights;
  for (absl::CivilHour hour(2026, 7, 3, 18); hour < absl::CivilHour(2026, 7, 8, 0); ++hour) {
    const absl::Time at = absl::FromCivil(hour, absl::UTCTimeZone());
    if (at > begun && at < ended) hours.push_back(at);
    if (hour.hour() == 0 && at + absl::Minutes(30) > begun && at + absl::Minutes(30) < ended)
      nights.push_back(at + absl::Minutes(30));  // 02:30 in Berlin
  }
  ExpectEachOnce("hourly", hours);
  ExpectEachOnce("nightly", nights);
  // Jobs go six hours after their end: 24 quarters, 6 hours, a night, and those under way.
  const size_t jobs = cluster_.ListAll().size();
  EXPECT_LT(jobs, 80u);
  // From the first look without a kill to the last.
  const auto grown = [](const std::vector<Use>& use) {
    return Use{use.back().mb - use[use.size() / 4].mb,
               use.back().descriptors - use[use.size() / 4].descriptors};
  };
  const Use by_coordinator = grown(coordinator_use), by_agent = grown(agent_use);
  EXPECT_LT(by_coordinator.mb, 8);
  EXPECT_LT(by_agent.mb, 8);
  EXPECT_LE(by_coordinator.descriptors, 4);
  EXPECT_LE(by_agent.descriptors, 4);
  EXPECT_GE(kills, 3);
  Note("R23", {{"simulated_hours", absl::ToDoubleHours(length)},
               {"fires", fires_checked_},
               {"kills", kills},
               {"missed_or_doubled", HasFailure() ? 1 : 0},
               {"jobs_left", jobs},
               {"coordinator_grown_mb", by_coordinator.mb},
               {"coordinator_grown_fds", by_coordinator.descriptors},
               {"agent_grown_mb", by_agent.mb},
               {"agent_grown_fds", by_agent.descriptors}});
}

}  // namespace
}  // namespace ll
