// Every engine keeps what engine.h promises: one test, run for each. A real driver with a store in
// memory decides; the workers are ModelWorkers, in this process or at the other end of a gRPC
// stream.
#include <grpcpp/grpcpp.h>

#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "coordinator/engine/engines.h"
#include "coordinator/engine/in_process_engine.h"
#include "coordinator/store/mem_store.h"
#include "coordinator/workers/hub.h"
#include "coordinator/workers/session.h"
#include "proto/workers.grpc.pb.h"
#include "rpc/channel.h"

namespace ll {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

// An engine with workers that the test connects and cuts off.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual Engine& engine() = 0;
  // A worker with two slots; one that was here before comes back with what it holds.
  virtual ModelWorker* Connect(const std::string& name) = 0;
  virtual void Disconnect(const std::string& name) = 0;
};

// ---- workers in this process

class InProcessSubject : public Subject {
 public:
  InProcessSubject(Driver& driver, int number)
      : engine_(number, [&driver](Event event, std::function<void()> done) {
          driver.AgentEvent(std::move(event), std::move(done));
        }) {}
  Engine& engine() override { return engine_; }
  ModelWorker* Connect(const std::string& name) override { return engine_.Connect(name, 2); }
  void Disconnect(const std::string& name) override { engine_.Disconnect(name); }

 private:
  InProcessEngine engine_;
};

// ---- workers behind the agents' stream

v1::AgentMessage ToProto(const Event& event) {
  v1::AgentMessage out;
  const auto set_exit = [](const RankExit& from, v1::ExitReport* to) {
    to->set_exit_code(from.code);
    to->set_signal(from.signal);
    to->set_ordered(from.ordered);
    to->set_failure_class(static_cast<v1::FailureClass>(from.failure_class));
  };
  if (const auto* hello = std::get_if<AgentHelloEvent>(&event)) {
    v1::Hello* to = out.mutable_hello();
    to->set_protocol_version(1);
    to->set_worker(hello->worker.value());
    to->set_incarnation(hello->incarnation);
    to->set_host(hello->host);
    for (const Slot& slot : hello->slots) {
      v1::Slot* s = to->add_slots();
      s->set_index(slot.index);
      s->set_kind(slot.kind);
      s->set_memory_bytes(slot.memory_bytes);
    }
    for (const HeldGang& gang : hello->gangs) {
      v1::HeldGang* g = to->add_gangs();
      g->set_job_id(gang.job.value());
      g->set_epoch(gang.epoch);
      for (const HeldRank& rank : gang.ranks) {
        v1::RankState* r = g->add_ranks();
        r->set_rank(rank.rank);
        r->set_slot(rank.slot);
        r->set_exited(rank.exited);
        if (rank.exited) set_exit(rank.exit, r->mutable_exit());
      }
    }
    return out;
  }
  const auto& report = std::get<ReportEvent>(event);
  v1::Report* to = out.mutable_report();
  to->set_job_id(report.job.value());
  to->set_epoch(report.epoch);
  to->set_rank(report.rank);
  to->set_sequence(report.sequence);
  if (std::holds_alternative<StartedFact>(report.fact)) to->mutable_started()->set_pid(1);
  if (std::holds_alternative<TrainingFact>(report.fact)) to->mutable_training()->set_step(0);
  if (const auto* exit = std::get_if<ExitFact>(&report.fact))
    set_exit(exit->exit, to->mutable_exit());
  return out;
}

std::optional<ModelWorker::Order> FromProto(const v1::CoordinatorMessage& message) {
  if (message.has_welcome()) {
    WelcomeOrder order;
    for (const v1::Verdict& v : message.welcome().verdicts())
      order.verdicts.push_back({JobId(v.job_id()), v.epoch(), v.keep(), v.report_sequence()});
    return order;
  }
  if (message.has_start()) {
    StartGangOrder order;
    order.job = JobId(message.start().job_id());
    order.epoch = message.start().epoch();
    order.world_size = message.start().world_size();
    for (const v1::RankPlace& p : message.start().ranks())
      order.ranks.push_back({p.rank(), p.slot()});
    return order;
  }
  if (message.has_stop()) {
    return StopGangOrder{JobId(message.stop().job_id()), message.stop().epoch(),
                         message.stop().checkpoint(), absl::ZeroDuration(), ""};
  }
  if (message.has_release())
    return ReleaseGangOrder{JobId(message.release().job_id()), message.release().epoch()};
  if (message.has_report_ack()) {
    const v1::ReportAck& ack = message.report_ack();
    return ReportAckOrder{JobId(ack.job_id()), ack.epoch(), ack.sequence()};
  }
  return std::nullopt;
}

// One session of a worker: its stream, and the thread that reads it.
class Stream {
 public:
  Stream(const std::shared_ptr<grpc::Channel>& channel, ModelWorker& worker)
      : worker_(worker), stub_(v1::Workers::NewStub(channel)), stream_(stub_->Session(&context_)) {
    worker_.Connect(1, [this](Event event) { stream_->Write(ToProto(event)); });
    reader_ = std::thread([this] {
      v1::CoordinatorMessage message;
      while (stream_->Read(&message)) {
        if (const auto order = FromProto(message)) worker_.Receive(*order, message.term());
      }
    });
  }
  ~Stream() {
    worker_.Disconnect();
    context_.TryCancel();
    reader_.join();
    stream_->Finish();
  }

 private:
  ModelWorker& worker_;
  grpc::ClientContext context_;
  std::unique_ptr<v1::Workers::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::AgentMessage, v1::CoordinatorMessage>> stream_;
  std::thread reader_;
};

class HubSubject : public Subject {
 public:
  HubSubject(Driver& driver, int number)
      : hub_({}, RealClock(), number), metrics_(RealClock()), telemetry_({.dir = dir_.path()}) {
    AuthOptions auth;
    auth.local_token = "token";
    auth.local_user = "u";
    authenticator_ = *Authenticator::Create(auth, RealClock());
    audit_ = *AuditLog::Open({.dir = dir_.path()}, RealClock());
    tenants_ = *Tenants::Open("", RealClock());
    api_ = {&driver,      &telemetry_,  authenticator_.get(), &metrics_,
            &RealClock(), audit_.get(), tenants_.get()};
    service_ = std::make_unique<WorkersService>(api_, hub_, join_desk_);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    ChannelConfig config;
    config.addresses = {absl::StrCat("127.0.0.1:", port)};
    config.token = "token";
    channel_ = *MakeChannel(config);
  }
  ~HubSubject() override {
    streams_.clear();
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
  }
  Engine& engine() override { return hub_; }
  ModelWorker* Connect(const std::string& name) override {
    auto& worker = workers_[name];
    if (worker == nullptr) worker = std::make_unique<ModelWorker>(name, 2);
    streams_.erase(name);
    streams_[name] = std::make_unique<Stream>(channel_, *worker);
    return worker.get();
  }
  void Disconnect(const std::string& name) override { streams_.erase(name); }

 private:
  const TempDir dir_;
  WorkerHub hub_;
  Metrics metrics_;
  Telemetry telemetry_;
  std::unique_ptr<Authenticator> authenticator_;
  std::unique_ptr<AuditLog> audit_;
  std::unique_ptr<Tenants> tenants_;
  JoinDesk join_desk_{""};
  ApiContext api_;
  std::unique_ptr<WorkersService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::map<std::string, std::unique_ptr<ModelWorker>> workers_;
  std::map<std::string, std::unique_ptr<Stream>> streams_;
};

// ---- the test

struct Kind {
  const char* name;
  std::unique_ptr<Subject> (*make)(Driver& driver, int number);
};

// An engine beside which nothing runs, so that the subject is not the only one.
class IdleEngine : public Engine {
 public:
  void Deliver(const Send&, int64_t) override { ADD_FAILURE() << "an order to a strange session"; }
  void EndAllSessions(const absl::Status&) override { ++ended; }
  std::atomic<int> ended{0};
};

class EngineConformance : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    DriverOptions options;
    options.tick = absl::Milliseconds(20);
    options.open_store = [this]() -> absl::StatusOr<std::unique_ptr<Store>> {
      struct Shared : Store {
        explicit Shared(EngineConformance& test) : test(test) {}
        absl::Status Commit(absl::Span<const Record> records) override {
          if (test.disk_full_) return absl::ResourceExhaustedError("disk full");
          return test.store_.Commit(records);
        }
        absl::StatusOr<StoredState> LoadAll() override { return test.store_.LoadAll(); }
        absl::StatusOr<int64_t> RaiseTerm(int64_t above) override {
          return test.store_.RaiseTerm(above);
        }
        std::string Description() const override { return "memory"; }
        EngineConformance& test;
      };
      return std::make_unique<Shared>(*this);
    };
    driver_ = std::make_unique<Driver>(std::move(options), RealClock());
    subject_ = GetParam().make(*driver_, 1);
    engines_.Add(&idle_);
    engines_.Add(&subject_->engine());
    driver_->SetGateway(&engines_);
    LL_ASSERT_OK(store_.RaiseTerm());  // there was a coordinator before: a lower term exists
    LL_ASSERT_OK(driver_->Start());
  }
  void TearDown() override {
    driver_->Stop();
    subject_.reset();
  }

  Reply Ask(Event event) {
    std::promise<Reply> promise;
    driver_->Request(std::move(event),
                     [&](const Reply& reply, const Scheduler*) { promise.set_value(reply); });
    return promise.get_future().get();
  }
  template <typename T>
  T Look(const std::function<T(const Scheduler&)>& look) {
    std::promise<T> promise;
    driver_->Read([&](const absl::Status&, const Scheduler* view) {
      promise.set_value(view == nullptr ? T() : look(*view));
    });
    return promise.get_future().get();
  }
  template <typename F>
  void Await(const char* what, F holds) {
    const absl::Time until = absl::Now() + kPatience;
    while (!holds()) {
      ASSERT_LT(absl::Now(), until) << what;
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
  void AwaitState(const JobId& job, JobState state) {
    const std::string name(JobStateName(state));
    Await(name.c_str(), [&] {
      return Look<bool>([&](const Scheduler& s) {
        return s.Find(job) != nullptr && s.Find(job)->state == state;
      });
    });
  }
  Job Get(const JobId& job) {
    return Look<Job>([&](const Scheduler& s) { return *s.Find(job); });
  }
  uint64_t SessionOf(const std::string& worker) {
    return Look<uint64_t>([&](const Scheduler& s) -> uint64_t {
      const auto it = s.workers().find(WorkerId(worker));
      return it == s.workers().end() ? 0 : it->second.session;
    });
  }
  ModelWorker* Connect(const std::string& name) {
    const uint64_t before = SessionOf(name);
    ModelWorker* worker = subject_->Connect(name);
    Await("a session", [&] {
      const uint64_t now = SessionOf(name);
      return now != 0 && now != before;
    });
    return worker;
  }
  JobId Submit(int gpus) {
    SubmitEvent event;
    event.job = NewJobId(SystemRandom());
    event.user = "u";
    event.spec.gpus = gpus;
    event.payload = std::make_shared<JobPayload>();
    LL_EXPECT_OK(Ask(event).status);
    return event.job;
  }
  // As the driver's thread does.
  template <typename Order>
  void Deliver(const std::string& worker, Order order, int64_t term) {
    const uint64_t session = SessionOf(worker);
    Look<bool>([&](const Scheduler&) {
      engines_.Deliver({WorkerId(worker), session, order}, term);
      return true;
    });
  }
  static StartGangOrder StartOf(const JobId& job, int64_t epoch) {
    StartGangOrder order;
    order.job = job;
    order.epoch = epoch;
    order.payload = std::make_shared<JobPayload>();
    order.world_size = 1;
    order.ranks = {{0, 0}};
    return order;
  }
  // Everything that was on its way has arrived: what was sent before has been answered.
  void Settle(const std::string& worker) {
    const JobId probe = Submit(1);
    AwaitState(probe, JobState::kRunning);
    ASSERT_NE(SessionOf(worker), 0u);
    LL_ASSERT_OK(Ask(CancelEvent{probe, "u", ""}).status);
    AwaitState(probe, JobState::kCancelled);
  }

  MemStore store_;
  std::atomic<bool> disk_full_{false};
  IdleEngine idle_;
  Engines engines_;
  std::unique_ptr<Driver> driver_;
  std::unique_ptr<Subject> subject_;
};

TEST_P(EngineConformance, CapacityIsWorkersWithSlotsUntilTheyGo) {
  Connect("w1");
  Connect("w2");
  const auto connected = [this] {
    return Look<int>([](const Scheduler& s) {
      int slots = 0;
      for (const auto& [name, worker] : s.workers())
        slots += worker.connected ? static_cast<int>(worker.slots.size()) : 0;
      return slots;
    });
  };
  EXPECT_EQ(connected(), 4);
  subject_->Disconnect("w2");
  Await("the end of w2's session", [&] { return connected() == 2; });
}

TEST_P(EngineConformance, AGangStartsWholeAndEndsOnce) {
  ModelWorker* worker = Connect("w1");
  const JobId job = Submit(2);
  AwaitState(job, JobState::kRunning);
  EXPECT_EQ(worker->started(job.value(), 1), 2);
  worker->End(job.value(), kExitDone);
  AwaitState(job, JobState::kSucceeded);
  EXPECT_EQ(worker->running(), 0);
  // Released: the next Hello does not name it.
  Connect("w1");
  EXPECT_EQ(Get(job).epoch, 1);
}

TEST_P(EngineConformance, OrdersAreObeyedOnceAndNeverLate) {
  ModelWorker* worker = Connect("w1");
  const JobId job = Submit(1);
  AwaitState(job, JobState::kRunning);
  worker->End(job.value(), 30);  // retried in a second
  Await("the second attempt", [&] { return worker->started(job.value(), 2) == 1; });
  AwaitState(job, JobState::kRunning);
  const int64_t term = driver_->term();
  Deliver("w1", StartOf(job, 2), term);  // again
  Deliver("w1", StartOf(job, 1), term);  // of an older epoch
  Deliver("w1", StopGangOrder{job, 1, false, absl::ZeroDuration(), "late"}, term);
  Deliver("w1", StartOf(job, 3), term - 1);  // of an older term
  Deliver("w1", StopGangOrder{job, 2, false, absl::ZeroDuration(), "older term"}, term - 1);
  Settle("w1");
  EXPECT_EQ(worker->started(job.value(), 1), 1);
  EXPECT_EQ(worker->started(job.value(), 2), 1);
  EXPECT_EQ(worker->started(job.value(), 3), 0);
  EXPECT_EQ(worker->running(), 1);
  EXPECT_EQ(Get(job).state, JobState::kRunning);
}

TEST_P(EngineConformance, AnEndOutOfContactIsToldAfterwardsAndCountsOnce) {
  ModelWorker* worker = Connect("w1");
  const JobId job = Submit(2);
  AwaitState(job, JobState::kRunning);
  subject_->Disconnect("w1");
  Await("the end of the session", [&] { return SessionOf("w1") == 0; });
  worker->End(job.value(), 30);
  EXPECT_EQ(Get(job).state, JobState::kRunning) << "silence proves nothing";
  Connect("w1");
  Await("the second attempt", [&] { return worker->started(job.value(), 2) == 2; });
  EXPECT_EQ(Get(job).retries, 1);
}

TEST_P(EngineConformance, RanksOutliveTheirSession) {
  ModelWorker* worker = Connect("w1");
  const JobId job = Submit(2);
  AwaitState(job, JobState::kRunning);
  for (int i = 0; i < 3; ++i) {
    subject_->Disconnect("w1");
    Connect("w1");
  }
  EXPECT_EQ(worker->running(), 2);
  EXPECT_EQ(worker->started(job.value(), 1), 2);
  worker->End(job.value(), kExitDone);
  AwaitState(job, JobState::kSucceeded);
  EXPECT_EQ(Get(job).retries, 0);
}

TEST_P(EngineConformance, AStopIsConfirmedByTheExits) {
  ModelWorker* worker = Connect("w1");
  const JobId job = Submit(2);
  AwaitState(job, JobState::kRunning);
  LL_ASSERT_OK(Ask(PauseEvent{job, "u"}).status);
  AwaitState(job, JobState::kPaused);
  EXPECT_EQ(worker->running(), 0);
  LL_ASSERT_OK(Ask(ResumeEvent{job, "u"}).status);
  Await("the second attempt", [&] { return worker->started(job.value(), 2) == 2; });
  LL_ASSERT_OK(Ask(CancelEvent{job, "u", ""}).status);
  AwaitState(job, JobState::kCancelled);
  EXPECT_EQ(worker->running(), 0);
}

TEST_P(EngineConformance, WhatTheWelcomeDoesNotKeepIsKilled) {
  ModelWorker* worker = Connect("w1");
  const JobId job = Submit(1);
  AwaitState(job, JobState::kRunning);
  subject_->Disconnect("w1");
  Await("the end of the session", [&] { return SessionOf("w1") == 0; });
  LL_ASSERT_OK(Ask(WorkerDeclaredDeadEvent{WorkerId("w1"), "op"}).status);
  LL_ASSERT_OK(Ask(CancelEvent{job, "u", ""}).status);
  AwaitState(job, JobState::kCancelled);
  EXPECT_EQ(worker->running(), 1);
  Connect("w1");
  Await("the forgotten rank's end", [&] { return worker->running() == 0; });
}

TEST_P(EngineConformance, AFailedCommitEndsEverySessionAndNothingOfItIsDone) {
  ModelWorker* worker = Connect("w1");
  const JobId job = Submit(1);
  AwaitState(job, JobState::kRunning);
  disk_full_ = true;
  SubmitEvent lost;
  lost.job = NewJobId(SystemRandom());
  lost.payload = std::make_shared<JobPayload>();
  EXPECT_FALSE(Ask(lost).status.ok());
  disk_full_ = false;
  EXPECT_GT(idle_.ended, 0);
  Await("the end of the session", [&] { return SessionOf("w1") == 0; });
  Connect("w1");
  EXPECT_EQ(worker->started(lost.job.value(), 1), 0);
  EXPECT_EQ(worker->running(), 1);
  worker->End(job.value(), kExitDone);
  AwaitState(job, JobState::kSucceeded);
}

INSTANTIATE_TEST_SUITE_P(
    Engines, EngineConformance,
    testing::Values(Kind{"Agents",
                         [](Driver& driver, int number) -> std::unique_ptr<Subject> {
                           return std::make_unique<HubSubject>(driver, number);
                         }},
                    Kind{"InProcess",
                         [](Driver& driver, int number) -> std::unique_ptr<Subject> {
                           return std::make_unique<InProcessSubject>(driver, number);
                         }}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(SessionNumbers, TellWhoseSessionItIs) {
  std::set<uint64_t> seen;
  for (int engine = 0; engine < kMaxEngines; ++engine) {
    SessionNumbers numbers(engine);
    for (int i = 0; i < 3; ++i) {
      const uint64_t number = numbers.Next();
      EXPECT_NE(number, 0u);
      EXPECT_TRUE(seen.insert(number).second);
      EXPECT_EQ(SessionNumbers::EngineOf(number), engine);
    }
  }
}

}  // namespace
}  // namespace ll
