// R2: how soon a coordinator that was killed serves again; R13a: one that stays away for long.
#include <signal.h>

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "rpc/status.h"
#include "tests/chaos/chaos.h"
#include "tests/chaos/light_agents.h"
#include "tests/cluster/cluster.h"

namespace ll {
namespace {

class RestartTest : public testing::Test {
 protected:
  static void Await(const std::function<bool()>& done, absl::Duration patience, const char* what) {
    const absl::Time deadline = absl::Now() + patience;
    while (!done()) {
      ASSERT_LT(absl::Now(), deadline) << what;
      absl::SleepFor(absl::Milliseconds(2));
    }
  }
  // How many jobs are in a state, up to a thousand.
  int Count(v1::JobState state) {
    v1::ListRequest request;
    request.set_page_size(1000);
    request.add_states(state);
    request.mutable_read_mask()->add_paths("job_id");
    v1::ListResponse jobs;
    return api_->jobs->List(Context().get(), request, &jobs).ok() ? jobs.jobs_size() : -1;
  }
  // How often a coordinator has said that it serves.
  int64_t TimesServing() {
    const std::string log = ReadFile(cluster_.dir() + "/coordinator.log").value_or("");
    int64_t count = 0;
    for (size_t at = 0; (at = log.find("serving grpc=", at)) != std::string::npos; ++at) ++count;
    return count;
  }
  // The id of the last one.
  std::string SubmitMany(int count) {
    std::string last;
    for (int made = 0; made < count;) {
      v1::SubmitAllRequest request;
      for (int i = 0; i < 1000 && made < count; ++i, ++made) {
        v1::SubmitMember* member = request.add_members();
        member->set_name(absl::StrCat("m", made));
        *member->mutable_spec() = cluster_.TrainSpec(1, 1'000'000);
      }
      v1::SubmitAllResponse response;
      const absl::Status status = FromGrpcStatus(
          api_->jobs->SubmitAll(Context(absl::Seconds(60)).get(), request, &response));
      EXPECT_THAT(status, IsOk());
      if (!status.ok()) return "";
      last = response.jobs(response.jobs_size() - 1).job_id();
    }
    return last;
  }

  Cluster cluster_;
  std::unique_ptr<ApiClient> api_;
};

// Ranks are stand-ins in this process, so that a thousand of them fit; the coordinator, its store
// and every connection are real.
TEST_F(RestartTest, ServesSoonAfterAKillWithAFullQueue) {
  const int kAgents = 10, slots = Size(10, 100), queued = Size(2000, 10'000);
  const int running = kAgents * slots;
  cluster_.StartCoordinator();
  api_ = cluster_.NewClient();
  LightAgents agents([this] { return cluster_.Connect(); }, kAgents, slots);
  Await([&] { return agents.connected() == kAgents; }, absl::Seconds(20), "agents");
  const std::string last = SubmitMany(running + queued);
  Await([&] { return Count(v1::RUNNING) == running; }, absl::Seconds(Size(30, 120)), "ranks");
  ASSERT_EQ(agents.started(), running);
  std::vector<double> serving, agents_back;
  for (int trial = 0; trial < Size(2, 20); ++trial) {
    cluster_.KillCoordinator();
    Await([&] { return agents.connected() == 0; }, absl::Seconds(20), "agents to notice");
    // Its own word, which comes with its store read and its port open: the clients of this process
    // share connections that wait between their attempts.
    const int64_t said = TimesServing();
    const absl::Time began = absl::Now();
    absl::Time served = absl::InfiniteFuture();
    std::thread watcher([&] {
      while (TimesServing() == said && absl::Now() - began < absl::Seconds(60))
        absl::SleepFor(absl::Milliseconds(1));
      served = absl::Now();
    });
    cluster_.StartCoordinator();
    watcher.join();
    LL_ASSERT_OK(cluster_.Get(last));
    serving.push_back(absl::ToDoubleSeconds(served - began));
    Await([&] { return agents.connected() == kAgents; }, absl::Seconds(20), "agents to return");
    agents_back.push_back(absl::ToDoubleSeconds(absl::Now() - began));
    EXPECT_EQ(Count(v1::RUNNING), running);
  }
  EXPECT_EQ(agents.started(), running) << "ranks were started again";
  EXPECT_EQ(agents.ended(), 0);
  EXPECT_LT(Percentile(serving, 0.5), Size(5.0, 1.0));
  Note("R2", {{"queued", queued},
              {"running", running},
              {"stand_in_ranks", true},
              {"seconds_to_serving", serving},
              {"seconds_to_agents", agents_back},
              {"rss_mb", cluster_.CoordinatorRss() / 1'000'000},
              {"restarted_ranks", agents.started() - running + agents.ended()}});
}

// R13, of the coordinator itself: nobody is there for ten minutes, and the ranks are the same
// processes before, meanwhile and afterwards. With real agents and the stand-in trainer.
TEST_F(RestartTest, RanksOutliveAnAbsence) {
  const absl::Duration away = absl::Seconds(Size(3, 600));
  cluster_.StartCoordinator();
  cluster_.StartWorker();
  cluster_.AwaitWorkers(1);
  v1::JobSpec spec = cluster_.TrainSpec(2, 10'000'000);
  (*spec.mutable_labels())["fake.step_ms"] = "100";
  const auto job = cluster_.Submit(spec);
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 3);
  const std::vector<pid_t> ranks = cluster_.TrainerPids(*job);
  ASSERT_EQ(ranks.size(), 2u);
  const int64_t before = cluster_.Get(*job)->progress().step();
  cluster_.KillCoordinator();
  const absl::Time end = absl::Now() + away;
  while (absl::Now() < end) {
    ASSERT_EQ(cluster_.TrainerPids(*job), ranks);
    absl::SleepFor(std::min(absl::Seconds(1), end - absl::Now()));
  }
  cluster_.StartCoordinator();
  cluster_.AwaitWorkers(1);
  // What was done meanwhile is told.
  const auto steps = static_cast<int64_t>(absl::ToDoubleSeconds(away) * 10 / 2);
  cluster_.AwaitStep(*job, before + steps);
  EXPECT_EQ(cluster_.TrainerPids(*job), ranks);
  const v1::Job after = *cluster_.Get(*job);
  EXPECT_EQ(after.epoch(), 1);
  EXPECT_EQ(after.retries(), 0);
  Note("R13a", {{"away_seconds", absl::ToDoubleSeconds(away)},
                {"steps_meanwhile", after.progress().step() - before},
                {"stopped_ranks", 0}});
  LL_EXPECT_OK(cluster_.Cancel(*job));
}

// R4's false alarms: a coordinator stands still for longer than every lease (a paused virtual
// machine, a disk that hangs). When it goes on it takes nobody for dead, though another host is
// idle and could run the job.
TEST_F(RestartTest, APauseOfTheCoordinatorRaisesNoAlarm) {
  const absl::Duration pause = absl::Seconds(Size(2, 60));
  cluster_.StartCoordinator(
      {"--shared-job-store", "--lease-seconds", "1", "--heartbeat-seconds", "0.25"});
  for (const char* name : {"w1", "w2"}) {
    WorkerConfig config;
    config.name = name;
    config.flags = {"--job-store", cluster_.SharedStore()};
    cluster_.StartWorker(config);
  }
  cluster_.AwaitWorkers(2);
  v1::JobSpec spec = cluster_.TrainSpec(2, 10'000'000);
  (*spec.mutable_labels())["fake.step_ms"] = "20";
  const auto job = cluster_.Submit(spec);
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 3);
  const std::vector<pid_t> ranks = cluster_.TrainerPids(*job);
  ASSERT_EQ(ranks.size(), 2u);
  int alarms = 0;
  const int pauses = Size(1, 3);
  for (int i = 0; i < pauses; ++i) {
    const int64_t before = cluster_.Get(*job)->progress().step();
    ASSERT_EQ(kill(cluster_.coordinator_pid(), SIGSTOP), 0);
    absl::SleepFor(pause);
    ASSERT_EQ(kill(cluster_.coordinator_pid(), SIGCONT), 0);
    const absl::Time until = absl::Now() + absl::Seconds(Size(1, 10));
    while (absl::Now() < until) {
      const auto now = cluster_.Get(*job);
      alarms += now.ok() && (now->epoch() != 1 || now->retries() != 0 ||
                             now->state() != v1::RUNNING || cluster_.TrainerPids(*job) != ranks);
      absl::SleepFor(absl::Milliseconds(20));
    }
    // What was trained meanwhile is told.
    cluster_.AwaitStep(*job, before + static_cast<int64_t>(absl::ToDoubleSeconds(pause) * 10));
    cluster_.AwaitWorkers(2);
  }
  EXPECT_EQ(alarms, 0);
  Note("R4a",
       {{"pauses", pauses}, {"pause_seconds", absl::ToDoubleSeconds(pause)}, {"alarms", alarms}});
  LL_EXPECT_OK(cluster_.Cancel(*job));
}

}  // namespace
}  // namespace ll
