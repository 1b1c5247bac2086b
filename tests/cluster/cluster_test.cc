// The service as a user sees it while its processes are killed. Each test has a cluster of its own.
#include "tests/cluster/cluster.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_matchers.h"

namespace ll {
namespace {

class ClusterTest : public testing::Test {
 protected:
  // The losses of an undisturbed run of `spec`, by step.
  LossesByStep Reference(const v1::JobSpec& spec) {
    const auto job = cluster_.Submit(spec);
    EXPECT_THAT(job, IsOk());
    cluster_.AwaitEnd(*job);
    return cluster_.LossesOnDisk(*job);
  }
  // Every step is there, was computed with one result only, and with the reference's.
  static void ExpectSame(const LossesByStep& losses, const LossesByStep& reference,
                         int64_t max_steps) {
    ASSERT_EQ(static_cast<int64_t>(reference.size()), max_steps);
    EXPECT_EQ(losses, reference);
  }
  static std::set<pid_t> AsSet(const std::vector<pid_t>& pids) {
    return {pids.begin(), pids.end()};
  }
  void AwaitNoTrainer(const std::string& job) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (!cluster_.TrainerPids(job).empty() && absl::Now() < deadline)
      absl::SleepFor(absl::Milliseconds(20));
    EXPECT_TRUE(cluster_.TrainerPids(job).empty());
  }
  // It goes no further than `step` until LetGo: what is done to it meanwhile, however long that
  // takes, is done before its end.
  static v1::JobSpec HeldAt(int64_t step, v1::JobSpec spec) {
    (*spec.mutable_labels())["fake.hold_at"] = absl::StrCat(step);
    return spec;
  }
  void LetGo() { LL_EXPECT_OK(WriteFileAtomic(cluster_.dir() + "/go", "")); }
  void StartBoth(const WorkerConfig& worker = {}) {
    cluster_.StartCoordinator();
    cluster_.StartWorker(worker);
    cluster_.AwaitWorkers(1);
  }

  Cluster cluster_;
};

TEST_F(ClusterTest, SubmitRunFinish) {
  StartBoth();
  const auto job = cluster_.Submit(cluster_.TrainSpec(2, 50));
  LL_ASSERT_OK(job);
  const LossesByStep watched = cluster_.WatchSteps(*job, kPatience);
  const v1::Job ended = cluster_.AwaitEnd(*job);
  EXPECT_EQ(ended.epoch(), 1);
  EXPECT_EQ(ended.newest_checkpoint().step(), 50);
  EXPECT_EQ(ended.result().fields().at("steps").number_value(), 50);
  // A watcher sees every step before the end of the job.
  EXPECT_EQ(watched.size(), 50u);
  EXPECT_EQ(watched, cluster_.LossesOnDisk(*job));
  // The coordinator's copy of the log is the rank's standard output.
  EXPECT_EQ(cluster_.Log(*job, 0),
            *ReadFile(cluster_.WorkDir("w1") + "/jobs/" + *job + "/e0001/rank-00.log"));
  AwaitNoTrainer(*job);
}

TEST_F(ClusterTest, AMergeOfAJobLeavesAFolderInItsOwn) {
  StartBoth();
  const auto trained = cluster_.Submit(cluster_.TrainSpec(1, 5));
  LL_ASSERT_OK(trained);
  EXPECT_EQ(cluster_.AwaitEnd(*trained).state(), v1::SUCCEEDED);
  v1::JobSpec spec;
  spec.set_kind("merge");
  spec.set_job(*trained);
  spec.set_merge_out("extended");
  const auto merge = cluster_.Submit(spec);
  LL_ASSERT_OK(merge);
  const v1::Job ended = cluster_.AwaitEnd(*merge);
  EXPECT_EQ(ended.state(), v1::SUCCEEDED) << ended.reason();
  const std::string out = ended.result().fields().at("out").string_value();
  EXPECT_EQ(out, cluster_.WorkDir("w1") + "/jobs/" + *merge + "/e0001/extended");
  EXPECT_TRUE(FileExists(out + "/config.json"));
  EXPECT_EQ(ended.resolved_spec().adapter(), cluster_.Get(*trained)->newest_checkpoint().path());
}

TEST_F(ClusterTest, KilledCoordinatorDisturbsNobody) {
  StartBoth();
  const auto job = cluster_.Submit(HeldAt(780, cluster_.TrainSpec(2, 800)));
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 20);
  const std::set<pid_t> before = AsSet(cluster_.TrainerPids(*job));
  EXPECT_EQ(before.size(), 2u);
  Cluster::Watched watched;
  absl::Notification watching;
  std::thread watcher(
      [&] { watched = cluster_.WatchThroughCuts(*job, absl::Seconds(90), &watching); });
  EXPECT_TRUE(watching.WaitForNotificationWithTimeout(kPatience));
  for (int i = 0; i < 3; ++i) {
    cluster_.KillCoordinator();
    absl::SleepFor(absl::Milliseconds(100 + cluster_.random().Below(400)));
    const absl::Time began = absl::Now();
    cluster_.StartCoordinator();
    const absl::Time serves = absl::Now();
    cluster_.AwaitWorkers(1);
    std::cout << "serving again after " << absl::FormatDuration(serves - began)
              << ", the worker back after " << absl::FormatDuration(absl::Now() - serves)
              << std::endl;
  }
  EXPECT_EQ(AsSet(cluster_.TrainerPids(*job)), before);
  LetGo();
  const v1::Job ended = cluster_.AwaitEnd(*job);
  EXPECT_EQ(ended.epoch(), 1);
  EXPECT_EQ(ended.retries(), 0);
  EXPECT_EQ(cluster_.LossesOnDisk(*job).size(), 800u);
  // Nothing of the telemetry was lost either.
  EXPECT_EQ(cluster_.WatchSteps(*job, kPatience), cluster_.LossesOnDisk(*job));
  // The reader who was cut off by each kill was told everything once.
  watcher.join();
  EXPECT_GE(watched.cuts, 1);  // of three: on a busy host one may come before it is back
  EXPECT_EQ(watched.others, cluster_.WatchThroughCuts(*job, kPatience).others);
  std::vector<std::string> states;
  for (const v1::Transition& t : ended.history()) states.push_back(v1::JobState_Name(t.state()));
  ASSERT_LE(watched.states.size(), states.size());
  states.erase(states.begin(), states.end() - static_cast<int64_t>(watched.states.size()));
  EXPECT_EQ(watched.states, states);
}

TEST_F(ClusterTest, KilledAgentCostsAtMostACheckpointInterval) {
  StartBoth();
  const v1::JobSpec spec = cluster_.TrainSpec(2, 150);
  const LossesByStep reference = Reference(spec);
  const auto job = cluster_.Submit(HeldAt(140, spec));
  LL_ASSERT_OK(job);
  for (int i = 0; i < 2; ++i) {
    const int64_t step =
        cluster_.AwaitStep(*job, 30 + 50 * i + static_cast<int64_t>(cluster_.random().Below(15)))
            .progress()
            .step();
    cluster_.KillWorker("w1");
    AwaitNoTrainer(*job);
    const absl::Time began = absl::Now();
    cluster_.StartWorker();
    const v1::Job again = cluster_.Await(
        *job,
        [&](const v1::Job& now) { return now.epoch() == i + 2 && now.state() == v1::RUNNING; },
        absl::Seconds(40));
    std::cout << "training again after " << absl::FormatDuration(absl::Now() - began) << std::endl;
    // It went on from the newest checkpoint, at most one interval (and what ran meanwhile) before
    // the kill.
    EXPECT_GE(again.newest_checkpoint().step(), step - 10);
  }
  LetGo();
  const v1::Job ended = cluster_.AwaitEnd(*job);
  EXPECT_EQ(ended.epoch(), 3);
  int64_t computed = 0;
  ExpectSame(cluster_.LossesOnDisk(*job, &computed), reference, 150);
  EXPECT_LE(computed, 150 + 2 * 10);  // the interval is 10 steps
}

TEST_F(ClusterTest, KilledRankTakesTheGangAlongAndItResumes) {
  StartBoth();
  v1::JobSpec spec = cluster_.TrainSpec(2, 60);
  const LossesByStep reference = Reference(spec);
  for (const char* rank : {"0", "1"}) {
    for (const char* fault : {"crash", "segv"}) {
      (*spec.mutable_labels())["fake.fault"] = fault;
      (*spec.mutable_labels())["fake.rank"] = rank;
      (*spec.mutable_labels())["fake.step"] = absl::StrCat(11 + cluster_.random().Below(40));
      const auto job = cluster_.Submit(spec);
      LL_ASSERT_OK(job);
      const v1::Job ended = cluster_.AwaitEnd(*job);
      EXPECT_EQ(ended.epoch(), 2);
      EXPECT_EQ(ended.retries(), 1);
      ExpectSame(cluster_.LossesOnDisk(*job), reference, 60);
    }
  }
}

TEST_F(ClusterTest, FrozenAgentIsNotDead) {
  StartBoth();
  const auto job = cluster_.Submit(HeldAt(280, cluster_.TrainSpec(2, 300)));
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 20);
  const std::set<pid_t> before = AsSet(cluster_.TrainerPids(*job));
  cluster_.SignalWorker("w1", SIGSTOP);
  absl::SleepFor(absl::Seconds(2));
  EXPECT_EQ(AsSet(cluster_.TrainerPids(*job)), before);
  cluster_.SignalWorker("w1", SIGCONT);
  LetGo();
  const v1::Job ended = cluster_.AwaitEnd(*job);
  EXPECT_EQ(ended.epoch(), 1);
  EXPECT_EQ(cluster_.LossesOnDisk(*job).size(), 300u);
}

TEST_F(ClusterTest, AgentBeyondItsLeaseIsAdoptedAgain) {
  cluster_.StartCoordinator({"--lease-seconds", "2", "--heartbeat-seconds", "0.5"});
  cluster_.StartWorker();
  cluster_.AwaitWorkers(1);
  const auto job = cluster_.Submit(HeldAt(280, cluster_.TrainSpec(2, 300)));
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 20);
  cluster_.SignalWorker("w1", SIGSTOP);
  cluster_.Await(
      *job, [](const v1::Job& now) { return now.headless(); }, kPatience);
  absl::SleepFor(absl::Seconds(1));
  cluster_.SignalWorker("w1", SIGCONT);
  const v1::Job back = cluster_.Await(
      *job, [](const v1::Job& now) { return !now.headless(); }, kPatience);
  EXPECT_EQ(back.state(), v1::RUNNING);
  LetGo();
  const v1::Job ended = cluster_.AwaitEnd(*job);
  EXPECT_EQ(ended.epoch(), 1);
  EXPECT_EQ(cluster_.LossesOnDisk(*job).size(), 300u);
}

TEST_F(ClusterTest, GangAcrossTwoWorkersSurvivesTheLossOfEither) {
  cluster_.StartCoordinator({"--shared-job-store"});
  std::vector<WorkerConfig> workers(2);
  for (int i = 0; i < 2; ++i) {
    workers[i].name = absl::StrCat("w", i + 1);
    workers[i].cpu_slots = 1;
    workers[i].flags = {"--job-store", cluster_.SharedStore()};
    cluster_.StartWorker(workers[i]);
  }
  cluster_.AwaitWorkers(2);
  const v1::JobSpec spec = cluster_.TrainSpec(2, 150);
  const LossesByStep reference = Reference(spec);
  const auto job = cluster_.Submit(HeldAt(140, spec));
  LL_ASSERT_OK(job);
  for (int i = 0; i < 2; ++i) {
    cluster_.AwaitStep(*job, 30 + 50 * i);
    cluster_.KillWorker(workers[i].name);
    AwaitNoTrainer(*job);  // the other worker's rank is ended too
    cluster_.StartWorker(workers[i]);
    cluster_.Await(
        *job,
        [&](const v1::Job& now) { return now.epoch() == i + 2 && now.state() == v1::RUNNING; },
        absl::Seconds(40));
  }
  EXPECT_EQ(cluster_.Get(*job)->workers_size(), 2);
  LetGo();
  cluster_.AwaitEnd(*job);
  ExpectSame(cluster_.LossesOnDisk(*job), reference, 150);
}

TEST_F(ClusterTest, UserErrorsAndNaNAreNotRetried) {
  StartBoth();
  struct Case {
    const char* fault;
    v1::FailureClass failure_class;
  };
  for (const Case& c : {Case{"exit:20", v1::USER}, Case{"nan", v1::NOT_A_NUMBER},
                        Case{"exit:40", v1::OUT_OF_MEMORY}}) {
    v1::JobSpec spec = cluster_.TrainSpec(1, 30);
    (*spec.mutable_labels())["fake.fault"] = c.fault;
    (*spec.mutable_labels())["fake.epoch"] = "0";  // in every attempt
    const auto job = cluster_.Submit(spec);
    LL_ASSERT_OK(job);
    const v1::Job ended = cluster_.AwaitState(*job, v1::FAILED);
    EXPECT_EQ(ended.failure_class(), c.failure_class) << c.fault;
    EXPECT_EQ(ended.epoch(), 1) << c.fault;
    EXPECT_FALSE(ended.reason().empty());
  }
}

TEST_F(ClusterTest, CancelEndsTheWholeTree) {
  StartBoth();
  v1::JobSpec spec = cluster_.TrainSpec(2, 1'000'000);
  (*spec.mutable_labels())["fake.fault"] = "child";
  const auto job = cluster_.Submit(spec);
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 15);
  EXPECT_EQ(cluster_.TrainerPids(*job).size(), 3u);  // two ranks and what one of them left behind
  LL_ASSERT_OK(cluster_.Cancel(*job));
  cluster_.AwaitState(*job, v1::CANCELLED, kPatience);
  AwaitNoTrainer(*job);
}

TEST_F(ClusterTest, PauseFreesTheSlotsAndResumeGoesOnBitForBit) {
  StartBoth();
  const v1::JobSpec spec = cluster_.TrainSpec(2, 200);
  const LossesByStep reference = Reference(spec);
  const auto job = cluster_.Submit(HeldAt(180, spec));
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 40);
  LL_ASSERT_OK(cluster_.Pause(*job));
  const v1::Job paused = cluster_.AwaitState(*job, v1::PAUSED);
  AwaitNoTrainer(*job);
  EXPECT_GE(paused.newest_checkpoint().step(), 40);
  LL_ASSERT_OK(cluster_.Resume(*job));
  LetGo();
  cluster_.AwaitEnd(*job);
  ExpectSame(cluster_.LossesOnDisk(*job), reference, 200);
  // Not one step was computed twice: the pause wrote its own checkpoint.
  int64_t computed = 0;
  cluster_.LossesOnDisk(*job, &computed);
  EXPECT_EQ(computed, 200);
}

TEST_F(ClusterTest, SecondWorkerWithALiveNameIsRefused) {
  StartBoth();
  const auto job = cluster_.Submit(cluster_.TrainSpec(2, 200));
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 10);
  Subprocess impostor = cluster_.StartImpostor("w1");
  const auto exit = impostor.Wait(absl::Seconds(40));
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->exit_code, 3);
  EXPECT_EQ(cluster_.AwaitEnd(*job).epoch(), 1);
}

TEST_F(ClusterTest, FullDiskLosesTelemetryNotTheService) {
  // No file may grow beyond 16 KiB: the spool stops in the middle of the job, the checkpoints
  // (small files) do not.
  WorkerConfig config;
  config.file_limit_bytes = 16 << 10;
  StartBoth(config);
  const auto job = cluster_.Submit(cluster_.TrainSpec(2, 200));
  LL_ASSERT_OK(job);
  const v1::Job ended = cluster_.AwaitEnd(*job);
  EXPECT_EQ(ended.newest_checkpoint().step(), 200);
  EXPECT_LT(cluster_.LossesOnDisk(*job).size(), 200u);
}

TEST_F(ClusterTest, FullDiskFailsCheckpointsAndSpaceHeals) {
  WorkerConfig config;
  config.disk_bytes = 512 << 10;
  StartBoth(config);
  const std::string root =
      absl::StrCat("/proc/", cluster_.worker_pid("w1"), "/root", cluster_.WorkDir("w1"));
  const std::string ballast = root + "/ballast";
  // Nothing can be written: the job cannot even be started, says so, and is tried again.
  EXPECT_FALSE(AppendFile(ballast, std::string(1 << 20, 'x'), false).ok());
  v1::JobSpec spec = cluster_.TrainSpec(1, 30);
  spec.set_max_retries(100);
  const auto job = cluster_.Submit(spec);
  LL_ASSERT_OK(job);
  const v1::Job waits = cluster_.Await(
      *job, [](const v1::Job& now) { return now.retries() >= 1; }, kPatience);
  EXPECT_THAT(waits.DebugString(), testing::HasSubstr("No space left"));
  ASSERT_EQ(unlink(ballast.c_str()), 0);
  cluster_.AwaitEnd(*job);
}

TEST_F(ClusterTest, DrainedWorkerCheckpointsAndTheJobGoesOnWhenItIsBack) {
  StartBoth();
  const v1::JobSpec spec = cluster_.TrainSpec(2, 150);
  const LossesByStep reference = Reference(spec);
  const auto job = cluster_.Submit(HeldAt(140, spec));
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 33);
  cluster_.SignalWorker("w1", SIGTERM);
  const auto exit = cluster_.WaitForWorkerExit("w1", kPatience);
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->exit_code, 0);
  AwaitNoTrainer(*job);
  LetGo();
  cluster_.StartWorker();
  const v1::Job ended = cluster_.AwaitEnd(*job);
  EXPECT_EQ(ended.epoch(), 2);
  ExpectSame(cluster_.LossesOnDisk(*job), reference, 150);
}

// Whatever is killed, and whenever, the job ends with the losses of an undisturbed run.
TEST_F(ClusterTest, RandomKillsOfEverythingChangeNoBit) {
  StartBoth();
  v1::JobSpec spec = cluster_.TrainSpec(2, 400);
  spec.set_max_retries(100);
  const LossesByStep reference = Reference(spec);
  const auto job = cluster_.Submit(spec);
  LL_ASSERT_OK(job);
  const std::vector<std::string> victims = {"coordinator", "agent", "rank"};
  int kills = 0;
  for (int64_t step = 0; kills < 12; ++kills) {
    // Each in turn at first and while it trains, so that none is left out; then at random.
    if (kills < 3) {
      step = cluster_.AwaitStep(*job, step + 5 + static_cast<int64_t>(cluster_.random().Below(40)))
                 .progress()
                 .step();
    } else {
      absl::SleepFor(absl::Milliseconds(100 + cluster_.random().Below(900)));
    }
    const auto now = cluster_.Get(*job);
    if (now.ok() && now->state() == v1::SUCCEEDED) break;
    const std::string& victim = victims[kills < 3 ? kills : cluster_.random().Below(3)];
    std::cout << "kill " << victim
              << (now.ok() ? absl::StrCat(" at step ", now->progress().step()) : "") << std::endl;
    if (victim == "coordinator") {
      cluster_.KillCoordinator();
      absl::SleepFor(absl::Milliseconds(cluster_.random().Below(300)));
      cluster_.StartCoordinator();
    } else if (victim == "agent") {
      cluster_.KillWorker("w1");
      cluster_.StartWorker();
    } else {
      const std::vector<pid_t> pids = cluster_.TrainerPids(*job);
      if (!pids.empty()) kill(pids[cluster_.random().Below(pids.size())], SIGKILL);
    }
  }
  EXPECT_GE(kills, 3);
  cluster_.AwaitEnd(*job);
  ExpectSame(cluster_.LossesOnDisk(*job), reference, 400);
  AwaitNoTrainer(*job);
}

// Clients that repeat a request with its id until they get an answer, while the coordinator is
// killed again and again.
TEST_F(ClusterTest, NoAcknowledgedJobIsLostOrDoubledWhileTheCoordinatorIsKilled) {
  StartBoth();
  constexpr int kClients = 4, kEach = 30;
  absl::Mutex mu;
  std::map<std::string, std::string> acknowledged;  // request id -> job id
  std::atomic<int> left = kClients * kEach;
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&, client, api = cluster_.NewClient()]() mutable {
      const absl::Time deadline = absl::Now() + absl::Seconds(120);
      for (int i = 0; i < kEach; ++i) {
        const std::string id = absl::StrCat("request-", client, "-", i);
        while (absl::Now() < deadline) {
          const auto job = api->Submit(cluster_.TrainSpec(1, 1), id);
          if (!job.ok()) {
            absl::SleepFor(absl::Milliseconds(10));
            continue;
          }
          absl::MutexLock lock(&mu);
          acknowledged[id] = *job;
          break;
        }
        --left;
        absl::SleepFor(absl::Milliseconds(20));
      }
    });
  }
  int kills = 0;
  while (left > 0) {
    absl::SleepFor(absl::Milliseconds(50 + cluster_.random().Below(300)));
    cluster_.KillCoordinator();
    cluster_.StartCoordinator();
    ++kills;
  }
  for (std::thread& client : clients) client.join();
  std::cout << kills << " kills" << std::endl;
  ASSERT_EQ(acknowledged.size(), static_cast<size_t>(kClients * kEach));
  std::map<std::string, int> listed;
  for (const v1::Job& job : cluster_.ListAll()) ++listed[job.job_id()];
  std::set<std::string> ids;
  for (const auto& [request, job] : acknowledged) {
    EXPECT_EQ(listed[job], 1) << request;
    EXPECT_TRUE(ids.insert(job).second) << "one job for two requests: " << job;
    bool existed = false;
    const auto again = cluster_.Submit(cluster_.TrainSpec(1, 1), request, &existed);
    LL_ASSERT_OK(again);
    EXPECT_EQ(*again, job);
    EXPECT_TRUE(existed);
  }
  EXPECT_EQ(listed.size(), acknowledged.size());
  EXPECT_EQ(cluster_.Submit(cluster_.TrainSpec(1, 2), "request-0-0").status().code(),
            absl::StatusCode::kAlreadyExists);
  // And each of them is run.
  for (const auto& [request, job] : acknowledged) cluster_.AwaitEnd(job, absl::Seconds(120));
}

}  // namespace
}  // namespace ll
