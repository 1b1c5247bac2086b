// The reliability targets (docs/reliability.md) that need whole processes and no real trainer:
// small in every run, in full size with LL_CHAOS=full; run.py collects what they measure.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "nlohmann/json.hpp"
#include "rpc/status.h"
#include "tests/chaos/chaos.h"
#include "tests/cluster/cluster.h"

namespace ll {
namespace {

bool Terminal(v1::JobState state) {
  return state == v1::SUCCEEDED || state == v1::FAILED || state == v1::CANCELLED;
}

class ChaosTest : public testing::Test {
 protected:
  // Kills and starts the coordinator while `busy`; returns how often.
  int KillWhile(const std::function<bool()>& busy, absl::Duration least, absl::Duration most) {
    int kills = 0;
    while (busy()) {
      const auto spread = static_cast<uint64_t>(absl::ToInt64Milliseconds(most - least));
      absl::SleepFor(least + absl::Milliseconds(cluster_.random().Below(spread)));
      cluster_.KillCoordinator();
      cluster_.StartCoordinator();
      ++kills;
    }
    return kills;
  }

  // ll_jobs without the zeros.
  std::map<std::string, int64_t> CountedByState() {
    std::map<std::string, int64_t> counted;
    for (const absl::string_view line : absl::StrSplit(cluster_.Metrics(), '\n')) {
      constexpr absl::string_view kPrefix = "ll_jobs{state=\"";
      if (line.substr(0, kPrefix.size()) != kPrefix) continue;
      const std::pair<std::string, std::string> parts =
          absl::StrSplit(line.substr(kPrefix.size()), absl::MaxSplits("\"} ", 1));
      double value = 0;
      if (!absl::SimpleAtod(parts.second, &value)) {
        ADD_FAILURE() << line;
      } else if (value > 0) {
        counted[absl::AsciiStrToUpper(parts.first)] = static_cast<int64_t>(value);
      }
    }
    return counted;
  }

  Cluster cluster_;
};

// R1, R24.
TEST_F(ChaosTest, AcknowledgedSubmissionsSurviveKills) {
  cluster_.StartCoordinator();
  const int kClients = 8, each = Size(20, 125);
  absl::Mutex mu;
  std::vector<std::pair<std::string, std::string>> acknowledged;  // request id, job id
  std::set<std::string> cancelled;                                // every fifth, once acknowledged
  std::atomic<int> left = kClients;
  std::vector<std::thread> clients;
  const absl::Time deadline_of_all = absl::Now() + absl::Minutes(10);
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&, client, seed = cluster_.random().Next(), api = cluster_.NewClient()] {
      SeededRandom random(seed);
      for (int i = 0; i < each; ++i) {
        const std::string id = absl::StrCat("request-", client, "-", i);
        const absl::Time deadline = absl::Now() + absl::Seconds(60);
        while (absl::Now() < deadline) {
          const auto job = api->Submit(cluster_.TrainSpec(1, 1), id);
          if (job.ok()) {
            absl::MutexLock lock(&mu);
            acknowledged.emplace_back(id, *job);
            break;
          }
          absl::SleepFor(absl::Milliseconds(10));
        }
        absl::SleepFor(absl::Milliseconds(random.Below(Size(100, 300))));
        if (i % 5 != 0) continue;
        std::string job;
        {
          absl::MutexLock lock(&mu);
          if (acknowledged.empty()) continue;
          job = acknowledged.back().second;  // its own, or another client's
        }
        v1::CancelRequest request;
        request.set_job_id(job);
        v1::Job answer;
        while (absl::Now() < deadline_of_all) {
          const grpc::Status status = api->jobs->Cancel(Context().get(), request, &answer);
          // Of one that was cancelled before, by this call or by another client's: refused.
          if (status.ok() || status.error_code() == grpc::FAILED_PRECONDITION) {
            absl::MutexLock lock(&mu);
            cancelled.insert(job);
            break;
          }
          absl::SleepFor(absl::Milliseconds(10));
        }
      }
      --left;
    });
  }
  const int kills = KillWhile([&left] { return left > 0; }, absl::Milliseconds(Size(200, 500)),
                              absl::Milliseconds(Size(600, 2000)));
  for (std::thread& client : clients) client.join();
  std::map<std::string, int> listed;
  for (const v1::Job& job : cluster_.ListAll()) ++listed[job.job_id()];
  std::map<std::string, std::string> by_request;
  std::set<std::string> ids;
  int lost = 0, doubled = 0, reused = 0;
  for (const auto& [request, job] : acknowledged) {
    lost += listed[job] == 0;
    doubled += !by_request.emplace(request, job).second && by_request[request] != job;
    reused += !ids.insert(job).second;
  }
  EXPECT_EQ(acknowledged.size(), static_cast<size_t>(kClients * each));
  EXPECT_EQ(lost, 0);
  EXPECT_EQ(doubled, 0);
  EXPECT_EQ(reused, 0);
  EXPECT_EQ(listed.size(), acknowledged.size()) << "a job that nobody asked for";
  EXPECT_GE(kills, 3);
  Note("R1", {{"clients", kClients},
              {"submitted", kClients * each},
              {"acknowledged", acknowledged.size()},
              {"kills", kills},
              {"lost", lost},
              {"doubled", doubled},
              {"reused_ids", reused},
              {"listed", listed.size()}});

  // What the metrics count is what the store holds; gauges follow once a second.
  std::map<std::string, int64_t> states, counted;
  for (const v1::Job& job : cluster_.ListAll()) {
    ++states[v1::JobState_Name(job.state())];
    EXPECT_EQ(job.state() == v1::CANCELLED, cancelled.count(job.job_id()) > 0) << job.job_id();
  }
  EXPECT_EQ(states.size(), 2u);
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  do {
    absl::SleepFor(absl::Milliseconds(100));
    counted = CountedByState();
  } while (counted != states && absl::Now() < deadline);
  EXPECT_EQ(counted, states);
  Note("R24",
       {{"jobs", listed.size()}, {"states_compared", states.size()}, {"equal", counted == states}});
}

// R19: what clients saw of the job API, in real time's order, is what one copy of each job could
// have answered. A job's version is the number of its transitions, which only grows: so an answer
// that began after another had ended must not be older, and must hold the other's transitions; what
// was acknowledged before a question was asked is part of its answer.
TEST_F(ChaosTest, AnswersAreLinearizable) {
  cluster_.StartCoordinator();
  cluster_.StartWorker();
  cluster_.AwaitWorkers(1);
  struct Seen {
    int version = 0;
    std::vector<std::string> transitions;  // the longest that was seen
    bool cancelled = false;                // a cancel was acknowledged
  };
  const int kRequests = 40, kThreads = 6;
  const int64_t wanted = Size<int64_t>(4'000, 200'000);
  absl::Mutex mu;
  std::map<std::string, std::string> job_of;  // acknowledged: request id -> job id
  std::map<std::string, Seen> seen;
  std::vector<std::string> anomalies;
  std::atomic<int64_t> done = 0, failed = 0;
  std::atomic<int> left = kThreads;
  const auto anomaly = [&](const std::string& what)
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { anomalies.push_back(what); };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, seed = cluster_.random().Next(), api = cluster_.NewClient()] {
      SeededRandom random(seed);
      const auto get = [&](const std::string& id) {
        Seen before;
        {
          absl::MutexLock lock(&mu);
          before = seen[id];
        }
        v1::GetRequest request;
        request.set_job_id(id);
        v1::Job job;
        const absl::Status status = FromGrpcStatus(api->jobs->Get(Context().get(), request, &job));
        absl::MutexLock lock(&mu);
        if (absl::IsNotFound(status))
          return anomaly(absl::StrCat(id, " was acknowledged and is not found"));
        if (!status.ok()) return (void)++failed;
        std::vector<std::string> transitions;
        for (const v1::Transition& t : job.history())
          transitions.push_back(absl::StrCat(t.state(), " ", t.epoch(), " ", t.time().seconds(),
                                             ".", t.time().nanos()));
        const auto version = static_cast<int>(transitions.size());
        if (version < before.version)
          anomaly(absl::StrCat(id, " went back from version ", before.version, " to ", version));
        if (before.cancelled && job.state() != v1::CANCELLING && !Terminal(job.state()))
          anomaly(absl::StrCat(id, " is ", v1::JobState_Name(job.state()),
                               " after its cancel was acknowledged"));
        Seen& now = seen[id];
        const size_t common = std::min(now.transitions.size(), transitions.size());
        if (!std::equal(transitions.begin(), transitions.begin() + static_cast<ptrdiff_t>(common),
                        now.transitions.begin()))
          anomaly(absl::StrCat(id, " has two histories"));
        if (transitions.size() > now.transitions.size()) now.transitions = transitions;
        now.version = std::max(now.version, version);
      };
      while (done < wanted) {
        ++done;
        const std::string request_id = absl::StrCat("r", random.Below(kRequests));
        std::string id;
        {
          absl::MutexLock lock(&mu);
          if (const auto known = job_of.find(request_id); known != job_of.end()) id = known->second;
        }
        const uint64_t dice = random.Below(100);
        if (id.empty() || dice < 10) {
          v1::JobSpec spec = cluster_.TrainSpec(1, 3);
          (*spec.mutable_labels())["fake.step_ms"] = "1";
          const auto job = api->Submit(spec, request_id);
          absl::MutexLock lock(&mu);
          if (!job.ok()) {
            ++failed;
          } else if (const auto [at, fresh] = job_of.emplace(request_id, *job);
                     !fresh && at->second != *job) {
            anomaly(absl::StrCat(request_id, " made ", at->second, " and ", *job));
          }
        } else if (dice < 12) {
          v1::CancelRequest request;
          request.set_job_id(id);
          v1::Job job;
          const grpc::Status status = api->jobs->Cancel(Context().get(), request, &job);
          absl::MutexLock lock(&mu);
          if (status.ok()) seen[id].cancelled = true;
        } else if (dice < 15) {
          std::set<std::string> before;
          {
            absl::MutexLock lock(&mu);
            for (const auto& [request, job] : job_of) before.insert(job);
          }
          v1::ListRequest request;
          request.set_page_size(1000);
          v1::ListResponse jobs;
          if (!api->jobs->List(Context().get(), request, &jobs).ok()) {
            ++failed;
            continue;
          }
          for (const v1::Job& job : jobs.jobs()) before.erase(job.job_id());
          absl::MutexLock lock(&mu);
          for (const std::string& job : before)
            anomaly(absl::StrCat(job, " was acknowledged and is not listed"));
        } else {
          get(id);
        }
      }
      --left;
    });
  }
  const int kills = KillWhile([&left] { return left > 0; }, absl::Milliseconds(Size(150, 500)),
                              absl::Milliseconds(Size(500, 2000)));
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < std::min<size_t>(anomalies.size(), 10); ++i) ADD_FAILURE() << anomalies[i];
  EXPECT_GE(kills, 1);
  EXPECT_LT(failed * 2, done);
  Note("R19", {{"operations", done.load()},
               {"unanswered", failed.load()},
               {"kills", kills},
               {"anomalies", anomalies.size()}});
}

// R4, of a rank that dies.
TEST_F(ChaosTest, ADeadRankIsNoticed) {
  cluster_.StartCoordinator();
  cluster_.StartWorker();
  cluster_.AwaitWorkers(1);
  v1::JobSpec spec = cluster_.TrainSpec(1, 1'000'000);
  spec.set_max_retries(1000);
  const auto job = cluster_.Submit(spec);
  LL_ASSERT_OK(job);
  std::vector<double> noticed;
  for (int trial = 0; trial < Size(3, 100); ++trial) {
    // With a checkpoint of its own each attempt counts as progress, and the back-off stays short.
    const int64_t epoch = cluster_
                              .Await(
                                  *job,
                                  [](const v1::Job& now) {
                                    return now.state() == v1::RUNNING &&
                                           now.newest_checkpoint().epoch() == now.epoch();
                                  },
                                  absl::Seconds(90))
                              .epoch();
    const std::vector<pid_t> ranks = cluster_.TrainerPids(*job);
    ASSERT_EQ(ranks.size(), 1u);
    kill(ranks[0], SIGKILL);
    const absl::Time killed = absl::Now();
    while (true) {
      const auto now = cluster_.Get(*job);
      if (now.ok() && (now->state() != v1::RUNNING || now->epoch() != epoch)) break;
      ASSERT_LT(absl::Now() - killed, absl::Seconds(30));
      absl::SleepFor(absl::Milliseconds(2));
    }
    noticed.push_back(absl::ToDoubleSeconds(absl::Now() - killed));
  }
  EXPECT_LT(Percentile(noticed, 0.5), 1.0);
  Note("R4", {{"trials", noticed.size()},
              {"p50_seconds", Percentile(noticed, 0.5)},
              {"p99_seconds", Percentile(noticed, 0.99)},
              {"seconds", noticed}});
  LL_EXPECT_OK(cluster_.Cancel(*job));
}

// R14, readers that do not read.
TEST_F(ChaosTest, SlowReadersHarmNobody) {
  cluster_.StartCoordinator();
  cluster_.StartWorker();
  cluster_.AwaitWorkers(1);
  v1::JobSpec spec = cluster_.TrainSpec(1, Size(1500, 40'000));
  (*spec.mutable_labels())["fake.step_ms"] = "1";
  spec.set_save_steps(100'000);
  const auto job = cluster_.Submit(spec);
  LL_ASSERT_OK(job);
  cluster_.AwaitEnd(*job, absl::Seconds(Size(60, 300)));
  const auto latencies = [&](int calls) {
    std::vector<double> ms;
    const auto api = cluster_.NewClient();
    v1::GetRequest get;
    get.set_job_id(*job);
    for (int i = 0; i < calls; ++i) {
      const absl::Time began = absl::Now();
      v1::Job answer;
      EXPECT_THAT(i % 2 == 0 ? api->Submit(cluster_.TrainSpec(4, 1), "").status()
                             : FromGrpcStatus(api->jobs->Get(Context().get(), get, &answer)),
                  IsOk());
      ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - began));
      absl::SleepFor(absl::Milliseconds(5));
    }
    return ms;
  };
  const std::vector<double> alone = latencies(Size(40, 300));
  const int64_t before = cluster_.CoordinatorRss();
  struct Reader {
    std::unique_ptr<ApiClient> api;
    std::unique_ptr<grpc::ClientContext> context;
    std::unique_ptr<grpc::ClientReader<v1::WatchResponse>> stream;
  };
  std::vector<Reader> readers(Size(32, 100));
  for (Reader& reader : readers) {
    reader.api = cluster_.NewClient();
    reader.context = Context(absl::Seconds(300));
    v1::WatchRequest request;
    request.set_job_id(*job);
    reader.stream = reader.api->jobs->Watch(reader.context.get(), request);
    v1::WatchResponse first;
    EXPECT_TRUE(reader.stream->Read(&first));
  }
  const std::vector<double> beside = latencies(Size(40, 300));
  const int64_t grown = cluster_.CoordinatorRss() - before;
  for (Reader& reader : readers) reader.context->TryCancel();
  for (Reader& reader : readers) reader.stream->Finish();
  EXPECT_LT(grown, 64 << 20);
  EXPECT_LT(Percentile(beside, 0.5), std::max(20.0, 5 * Percentile(alone, 0.5)));
  Note("R14", {{"readers", readers.size()},
               {"grown_mb", static_cast<double>(grown) / 1e6},
               {"p50_ms_alone", Percentile(alone, 0.5)},
               {"p99_ms_alone", Percentile(alone, 0.99)},
               {"p50_ms_beside", Percentile(beside, 0.5)},
               {"p99_ms_beside", Percentile(beside, 0.99)}});
}

// R12: only with LL_FAKETIME, the path of libfaketime.so (run.py installs it).
TEST_F(ChaosTest, JumpsOfTheWallClockExpireNothing) {
  const char* library = getenv("LL_FAKETIME");
  ASSERT_NE(library, nullptr) << "run this by tests/chaos/run.py, which installs libfaketime";
  const std::string file = cluster_.dir() + "/faketime";
  LL_ASSERT_OK(WriteFileAtomic(file, "+0"));
  CoordinatorHost host;
  host.environment = {{"LD_PRELOAD", library},
                      {"FAKETIME_TIMESTAMP_FILE", file},
                      {"FAKETIME_NO_CACHE", "1"},
                      {"FAKETIME_DONT_FAKE_MONOTONIC", "1"},
                      {"DONT_FAKE_MONOTONIC", "1"}};
  cluster_.SetCoordinatorHost(host);
  cluster_.StartCoordinator({"--lease-seconds", "3", "--heartbeat-seconds", "1"});
  cluster_.StartWorker();
  cluster_.AwaitWorkers(1);
  const auto job = cluster_.Submit(cluster_.TrainSpec(1, 1'000'000));
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 5);
  int jumps = 0, lost = 0;
  for (const char* jump : {"+1h", "-1h", "+3650d", "+0", "@2026-03-29 00:59:58",
                           "2026-10-25 00:30:00", "-3650d", "+0"}) {
    LL_ASSERT_OK(WriteFileAtomic(file, jump));
    const int64_t step = cluster_.Get(*job)->progress().step();
    const absl::Time until = absl::Now() + absl::Seconds(Size(4, 10));
    while (absl::Now() < until) {
      const auto now = cluster_.Get(*job);
      if (!now.ok() || now->headless() || now->epoch() != 1 || now->state() != v1::RUNNING) ++lost;
      absl::SleepFor(absl::Milliseconds(100));
    }
    EXPECT_GT(cluster_.Get(*job)->progress().step(), step) << jump;
    ++jumps;
  }
  EXPECT_EQ(lost, 0);
  EXPECT_EQ(cluster_.Get(*job)->epoch(), 1);
  Note("R12",
       {{"jumps", jumps}, {"expired", lost}, {"relaunches", cluster_.Get(*job)->epoch() - 1}});
  LL_EXPECT_OK(cluster_.Cancel(*job));
}

// R6: a fault about every 29 seconds; LL_CHAOS_MINUTES says how long.
TEST_F(ChaosTest, SoakKeepsItsGoodput) {
  const char* minutes_text = getenv("LL_CHAOS_MINUTES");
  double minutes = 0.5;
  if (minutes_text != nullptr) {
    ASSERT_TRUE(absl::SimpleAtod(minutes_text, &minutes));
  }
  cluster_.StartCoordinator({"--shared-job-store"});
  const std::vector<std::string> names = {"w1", "w2", "w3", "w4"};
  const auto start = [&](const std::string& name) {
    WorkerConfig config;
    config.name = name;
    config.flags = {"--job-store", cluster_.SharedStore()};
    cluster_.StartWorker(config);
  };
  for (const std::string& name : names) start(name);
  cluster_.AwaitWorkers(4);
  v1::JobSpec spec = cluster_.TrainSpec(8, 10'000'000);
  spec.set_max_retries(1000);
  (*spec.mutable_labels())["fake.step_ms"] = "50";
  const auto job = cluster_.Submit(spec);
  LL_ASSERT_OK(job);
  const v1::Job first = cluster_.AwaitStep(*job, 1);
  const int calm = Size(5, 30);  // seconds; a step more or less must not count
  absl::SleepFor(absl::Seconds(calm));
  const v1::Job undisturbed = *cluster_.Get(*job);
  const absl::Time began = absl::Now();
  const double steps_per_second =
      static_cast<double>(undisturbed.progress().step() - first.progress().step()) / calm;
  std::map<std::string, int> faults;
  const absl::Time end = began + absl::Minutes(minutes);
  while (absl::Now() < end) {
    absl::SleepFor(
        std::min(absl::Milliseconds(24'000 + cluster_.random().Below(10'000)), end - absl::Now()));
    if (absl::Now() >= end) break;
    const uint64_t dice = cluster_.random().Below(3);
    if (dice == 0) {
      cluster_.KillCoordinator();
      cluster_.StartCoordinator({"--shared-job-store"});
      ++faults["coordinator"];
    } else if (dice == 1) {
      const std::string& name = names[cluster_.random().Below(names.size())];
      cluster_.KillWorker(name);
      start(name);
      ++faults["agent"];
    } else {
      const std::vector<pid_t> ranks = cluster_.TrainerPids(*job);
      if (!ranks.empty()) kill(ranks[cluster_.random().Below(ranks.size())], SIGKILL);
      ++faults["rank"];
    }
  }
  const v1::Job last = *cluster_.Get(*job);
  const double wall = absl::ToDoubleSeconds(absl::Now() - began);
  const double goodput =
      static_cast<double>(last.progress().step() - undisturbed.progress().step()) /
      steps_per_second / wall;
  for (const auto& [step, losses] : cluster_.LossesOnDisk(*job))
    ASSERT_EQ(losses.size(), 1u) << "step " << step << " has two losses";
  Note("R6", {{"minutes", minutes},
              {"ranks", 8},
              {"faults", faults},
              {"attempts", last.epoch()},
              {"steps", last.progress().step()},
              {"steps_per_second", steps_per_second},
              {"goodput", goodput}});
  EXPECT_GT(goodput, 0.5);
  LL_EXPECT_OK(cluster_.Cancel(*job));
}

}  // namespace
}  // namespace ll
