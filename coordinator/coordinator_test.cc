// A whole coordinator in process, driven over gRPC by a client and by an agent that follows a
// script.
#include "coordinator/coordinator.h"

#include <grpcpp/generic/generic_stub.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/field_error.h"
#include "base/sha256.h"
#include "coordinator/testing.h"
#include "model/plan/models.h"

namespace ll {
namespace {
using ::testing::HasSubstr;

// A store that says what a full disk says while told to.
class FullDiskStore : public Store {
 public:
  FullDiskStore(std::unique_ptr<Store> store, std::atomic<bool>& full)
      : store_(std::move(store)), full_(full) {}
  absl::Status Commit(absl::Span<const Record> records) override {
    if (full_) return absl::ResourceExhaustedError("no space left on device");
    return store_->Commit(records);
  }
  absl::StatusOr<StoredState> LoadAll() override { return store_->LoadAll(); }
  absl::StatusOr<int64_t> RaiseTerm() override { return store_->RaiseTerm(); }
  std::string Description() const override { return store_->Description(); }

 private:
  std::unique_ptr<Store> store_;
  std::atomic<bool>& full_;
};

class CoordinatorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LL_ASSERT_OK(MakeDirs(model()));
    LL_ASSERT_OK(WriteFileAtomic(
        model() + "/config.json",
        R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"vocab_size":512,
        "hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,
        "num_key_value_heads":2,"max_position_embeddings":256,"rms_norm_eps":1e-5,"hidden_act":"silu"})"));
    LL_ASSERT_OK(WriteFileAtomic(data(), "0123"));
  }
  void Start(Coordinator::WrapStore wrap = nullptr) {
    LL_ASSERT_OK(under_test_.Start(std::move(wrap)));
    Connect();
  }
  void Connect() {
    jobs_ = v1::Jobs::NewStub(under_test_.Channel());
    admin_ = v1::Admin::NewStub(under_test_.Channel());
  }
  void Restart() {
    under_test_.Stop();
    Start();
  }
  std::string model() { return under_test_.dir() + "/model"; }
  std::string data() { return under_test_.dir() + "/data.bin"; }

  v1::SubmitRequest Request(int gpus = 1, const std::string& request_id = "") {
    v1::SubmitRequest request;
    request.mutable_spec()->set_model(model());
    request.mutable_spec()->set_data(data());
    request.mutable_spec()->set_context_length(1024);
    request.mutable_spec()->set_max_steps(3);
    request.mutable_spec()->set_gpus(gpus);
    request.set_request_id(request_id);
    return request;
  }
  absl::StatusOr<v1::SubmitResponse> Submit(const v1::SubmitRequest& request) {
    return CallOnce<v1::SubmitResponse>(*jobs_, &v1::Jobs::Stub::Submit, request);
  }
  absl::StatusOr<v1::Job> Get(const std::string& id, bool history = false) {
    v1::GetRequest request;
    request.set_job_id(id);
    request.set_history(history);
    return CallOnce<v1::Job>(*jobs_, &v1::Jobs::Stub::Get, request);
  }
  void AwaitState(const std::string& id, v1::JobState state) {
    const absl::Time until = absl::Now() + kTestPatience;
    absl::StatusOr<v1::Job> job = Get(id);
    while (absl::Now() < until && job.ok() && job->state() != state) {
      absl::SleepFor(absl::Milliseconds(5));
      job = Get(id);
    }
    LL_ASSERT_OK(job);
    ASSERT_EQ(v1::JobState_Name(job->state()), v1::JobState_Name(state)) << job->reason();
  }
  std::unique_ptr<ScriptedAgent> Agent(const std::string& name, int slots,
                                       const std::string& incarnation = "i1") {
    auto agent = std::make_unique<ScriptedAgent>(under_test_.Channel(), name, incarnation);
    agent->AddSlots(slots);
    return agent;
  }

  CoordinatorUnderTest under_test_;
  std::unique_ptr<v1::Jobs::Stub> jobs_;
  std::unique_ptr<v1::Admin::Stub> admin_;
};

std::string StepLine(int step) {
  return absl::StrCat(R"({"event":"step","time":"2026-01-02T03:04:05Z","rank":0,"step":)", step,
                      R"(,"loss":)", 3.0 - step, R"(,"tokens":1024,"tokens_per_second":100})",
                      "\n");
}

// Each run is judged by what its telemetry told, against the last good one, also after a restart.
TEST_F(CoordinatorTest, AScheduledRunGetsItsVerdict) {
  Start();
  auto schedules = v1::Schedules::NewStub(under_test_.Channel());
  v1::CreateScheduleRequest create;
  create.mutable_schedule()->set_name("nightly");
  create.mutable_schedule()->set_cron("0 0 1 1 *");
  *create.mutable_schedule()->mutable_spec() = Request().spec();
  std::unique_ptr<ScriptedAgent> agent;
  const auto connect = [&] {
    agent = Agent("w1", 1);
    agent->SayHello();
    agent->TakeWelcome();
  };
  connect();  // first: admission looks at what the workers have
  LL_ASSERT_OK(CallOnce<v1::Schedule>(*schedules, &v1::Schedules::Stub::Create, create));
  const auto run = [&](int number, double last_loss) {
    v1::RunScheduleRequest request;
    request.set_name("nightly");
    request.set_request_id(absl::StrCat("r", number));
    const auto job = CallOnce<v1::Job>(*schedules, &v1::Schedules::Stub::Run, request);
    LL_EXPECT_OK(job);
    const v1::StartGang gang = agent->TakeStart();
    EXPECT_EQ(gang.spec().labels().at("schedule"), "nightly");
    agent->ReportTraining(gang);
    std::string lines;
    for (int step : {1, 2}) {
      absl::StrAppend(&lines, R"({"event":"step","step":)", step, R"(,"loss":)",
                      step == 1 ? 4.0 : last_loss, "}\n");
    }
    agent->SendTelemetry(gang, v1::Telemetry::EVENTS, 0, lines + "{\"event\":\"done\"}\n");
    agent->TakeTelemetryAck();
    agent->ReportExit(gang, 0);
    agent->Take([](const auto& m) { return m.has_release(); }, "release");
    v1::GetScheduleRequest get;
    get.set_name("nightly");
    const absl::Time until = absl::Now() + kTestPatience;
    while (absl::Now() < until) {
      const auto shown = CallOnce<v1::Schedule>(*schedules, &v1::Schedules::Stub::Get, get);
      if (shown.ok() && shown->runs(0).number() == number &&
          shown->runs(0).verdict() != v1::ScheduleRun::PENDING)
        return shown->runs(0);
      absl::SleepFor(absl::Milliseconds(20));
    }
    ADD_FAILURE() << "run " << number << " was not judged";
    return v1::ScheduleRun();
  };
  EXPECT_EQ(run(1, 2.0).verdict(), v1::ScheduleRun::BASELINE);
  agent.reset();
  Restart();
  connect();
  schedules = v1::Schedules::NewStub(under_test_.Channel());
  const v1::ScheduleRun worse = run(2, 3.0);
  EXPECT_EQ(worse.verdict(), v1::ScheduleRun::REGRESSED);
  EXPECT_EQ(worse.final_loss(), 3.0);
  EXPECT_EQ(worse.diverging_step(), 2);
  EXPECT_THAT(worse.verdict_reason(), HasSubstr("final loss 3 is 50 % above 2"));
  EXPECT_EQ(run(3, 2.01).verdict(), v1::ScheduleRun::SAME);
}

TEST_F(CoordinatorTest, AJobRunsFromSubmitToItsEnd) {
  Start();
  auto agent = Agent("w1", 2);
  agent->SayHello();
  EXPECT_EQ(agent->TakeWelcome().lease_seconds(), 30);
  LL_ASSERT_OK_AND_ASSIGN(v1::SubmitResponse submitted, Submit(Request(2)));
  const std::string id = submitted.job().job_id();

  std::vector<std::string> states, events;
  std::vector<int64_t> steps;
  absl::Notification watching;
  std::thread watcher([&] {
    grpc::ClientContext context;
    SetDeadline(context);
    v1::WatchRequest request;
    request.set_job_id(id);
    auto stream = jobs_->Watch(&context, request);
    v1::WatchResponse message;
    while (stream->Read(&message)) {
      if (message.has_job()) states.push_back(v1::JobState_Name(message.job().state()));
      if (!watching.HasBeenNotified()) watching.Notify();
      if (message.has_step()) steps.push_back(message.step().step());
      if (message.has_event())
        events.push_back(message.event().fields().at("event").string_value());
    }
    EXPECT_TRUE(stream->Finish().ok());
  });
  // A watcher that comes later hears of fewer transitions.
  ASSERT_TRUE(watching.WaitForNotificationWithTimeout(kTestPatience));

  const v1::StartGang gang = agent->TakeStart();
  EXPECT_EQ(gang.job_id(), id);
  EXPECT_EQ(gang.ranks_size(), 2);
  EXPECT_EQ(gang.spec().max_steps(), 3);
  EXPECT_EQ(gang.spec().method(), "longlora");
  v1::AgentMessage rendezvous;
  agent->NewReport(rendezvous, gang, 0)->mutable_rendezvous()->set_address("127.0.0.1:5");
  agent->Send(rendezvous);
  EXPECT_EQ(agent->Take([](const auto& m) { return m.has_rendezvous(); }, "rendezvous")
                .rendezvous()
                .address(),
            "127.0.0.1:5");
  agent->ReportTraining(gang);
  AwaitState(id, v1::RUNNING);
  const std::string lines = StepLine(1) + StepLine(2) + R"({"event":"eval","perplexity":9.5})" +
                            "\n" + StepLine(3) + R"({"event":"done"})" + "\n";
  agent->SendTelemetry(gang, v1::Telemetry::EVENTS, 0, lines);
  EXPECT_EQ(agent->TakeTelemetryAck().offset(), static_cast<int64_t>(lines.size()));
  agent->SendTelemetry(gang, v1::Telemetry::LOG, 0, "hello log\n");
  agent->TakeTelemetryAck();
  agent->ReportExit(gang, 0);
  agent->Take([](const auto& m) { return m.has_release(); }, "release");
  AwaitState(id, v1::SUCCEEDED);
  watcher.join();

  EXPECT_EQ(states.front(),
            "STARTING");  // slots were free: placed in the step that took the submit
  EXPECT_EQ(states.back(), "SUCCEEDED");
  EXPECT_EQ(std::count(states.begin(), states.end(), "RUNNING"), 1);
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(events, (std::vector<std::string>{"eval", "done"}));

  LL_ASSERT_OK_AND_ASSIGN(v1::Job job, Get(id, /*history=*/true));
  std::vector<std::string> history;
  for (const v1::Transition& t : job.history()) history.push_back(v1::JobState_Name(t.state()));
  EXPECT_EQ(history,
            (std::vector<std::string>{"QUEUED", "STARTING", "RUNNING", "FINISHING", "SUCCEEDED"}));
  EXPECT_EQ(job.steps_size(), 3);
  EXPECT_EQ(job.progress().step(), 3);
  EXPECT_EQ(job.progress().max_steps(), 3);
  EXPECT_EQ(job.progress().tokens(), 3 * 1024);

  grpc::ClientContext context;
  SetDeadline(context);
  v1::LogsRequest logs;
  logs.set_job_id(id);
  logs.set_offset(-4);
  auto stream = jobs_->Logs(&context, logs);
  v1::LogsResponse piece;
  ASSERT_TRUE(stream->Read(&piece));
  EXPECT_EQ(piece.data(), "log\n");
  EXPECT_FALSE(stream->Read(&piece));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(CoordinatorTest, AMessageReachesTheRankThatListensAndNoOther) {
  Start();
  auto agent = Agent("w1", 2);
  agent->SayHello();
  agent->TakeWelcome();
  const auto say = [&](const std::string& job) {
    v1::SayRequest request;
    request.set_job_id(job);
    (*request.mutable_message()->mutable_fields())["prompt"].set_string_value("Once");
    return CallOnce<v1::SayResponse>(*jobs_, &v1::Jobs::Stub::Say, request).status();
  };
  EXPECT_EQ(say("j-none").code(), absl::StatusCode::kNotFound);
  LL_ASSERT_OK_AND_ASSIGN(v1::SubmitResponse training, Submit(Request(1)));
  const v1::StartGang trains = agent->TakeStart();
  agent->ReportTraining(trains);
  AwaitState(trains.job_id(), v1::RUNNING);
  EXPECT_THAT(say(trains.job_id()).message(), testing::HasSubstr("a job of kind generate"));

  v1::SubmitRequest request = Request(1);
  v1::JobSpec talk;
  talk.set_kind("generate");
  talk.set_model(request.spec().model());
  *request.mutable_spec() = talk;
  request.set_request_id("talk");
  LL_ASSERT_OK_AND_ASSIGN(v1::SubmitResponse submitted, Submit(request));
  const v1::StartGang gang = agent->TakeStart();
  EXPECT_EQ(gang.job_id(), submitted.job().job_id());
  EXPECT_EQ(say(gang.job_id()).code(), absl::StatusCode::kFailedPrecondition);  // it loads yet
  agent->ReportTraining(gang);
  AwaitState(gang.job_id(), v1::RUNNING);
  EXPECT_EQ(say(gang.job_id()), absl::OkStatus());
  const v1::Say said = agent->Take([](const auto& m) { return m.has_say(); }, "say").say();
  EXPECT_EQ(said.job_id(), gang.job_id());
  EXPECT_EQ(said.epoch(), gang.epoch());
  EXPECT_EQ(said.line(), R"({"prompt":"Once"})");
  agent->Hang();
  // Until the coordinator has noticed, the message is on its way to nobody; then it is refused.
  absl::Status status;
  for (int i = 0; i < 200 && status.ok(); ++i) {
    status = say(gang.job_id());
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(CoordinatorTest, OneRequestIdMakesOneJobUnderEightThreadsAndAfterARestart) {
  Start();
  std::vector<std::set<std::string>> ids(20);
  absl::Mutex mu;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 60; ++i) {
        const auto got = Submit(Request(1, absl::StrCat("r", i % 20)));
        ASSERT_TRUE(got.ok()) << got.status();
        absl::MutexLock lock(&mu);
        ids[i % 20].insert(got->job().job_id());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  std::set<std::string> all;
  for (const auto& set : ids) {
    EXPECT_EQ(set.size(), 1u);
    all.insert(set.begin(), set.end());
  }
  EXPECT_EQ(all.size(), 20u);

  Restart();
  LL_ASSERT_OK_AND_ASSIGN(v1::SubmitResponse again, Submit(Request(1, "r7")));
  EXPECT_TRUE(again.existed());
  EXPECT_EQ(again.job().job_id(), *ids[7].begin());
  EXPECT_THAT(Submit(Request(2, "r7")), StatusIs(absl::StatusCode::kAlreadyExists, "r7"));
  // Also when it would not be admitted any more.
  LL_ASSERT_OK(RemoveTree(model()));
  LL_ASSERT_OK_AND_ASSIGN(again, Submit(Request(1, "r7")));
  EXPECT_TRUE(again.existed());
  EXPECT_THAT(Submit(Request(1, "new")), StatusIs(absl::StatusCode::kNotFound, "model"));
}

TEST_F(CoordinatorTest, ARestartDisturbsNoRunningJob) {
  Start();
  auto agent = Agent("w1", 1);
  agent->SayHello();
  agent->TakeWelcome();
  LL_ASSERT_OK_AND_ASSIGN(v1::SubmitResponse submitted, Submit(Request()));
  const v1::StartGang gang = agent->TakeStart();
  agent->ReportTraining(gang);
  agent->SendTelemetry(gang, v1::Telemetry::EVENTS, 0, StepLine(1));
  agent->TakeTelemetryAck();
  AwaitState(gang.job_id(), v1::RUNNING);
  const int64_t durable = agent->sequence();
  under_test_.Stop();
  EXPECT_THAT(agent->End(), StatusIs(absl::StatusCode::kUnavailable, "stopping"));
  Start();
  LL_ASSERT_OK_AND_ASSIGN(v1::Job job, Get(gang.job_id()));
  EXPECT_EQ(job.state(), v1::RUNNING);
  EXPECT_EQ(job.progress().step(), 1);

  agent = Agent("w1", 1);
  v1::HeldGang* held = agent->hello().add_gangs();
  held->set_job_id(gang.job_id());
  held->set_epoch(gang.epoch());
  held->add_ranks()->set_rank(0);
  agent->SayHello();
  const v1::Welcome welcome = agent->TakeWelcome();
  ASSERT_EQ(welcome.verdicts_size(), 1);
  EXPECT_TRUE(welcome.verdicts(0).keep());
  EXPECT_EQ(welcome.verdicts(0).report_sequence(), durable);
  ASSERT_EQ(welcome.telemetry_size(), 2);
  EXPECT_EQ(welcome.telemetry(0).offset(), static_cast<int64_t>(StepLine(1).size()));
  agent->SendTelemetry(gang, v1::Telemetry::EVENTS, welcome.telemetry(0).offset(), StepLine(2));
  agent->TakeTelemetryAck();
  v1::AgentMessage exit;
  v1::Report* report = agent->NewReport(exit, gang, 0);
  report->set_sequence(durable + 1);
  report->mutable_exit()->set_exit_code(0);
  agent->Send(exit);
  AwaitState(gang.job_id(), v1::SUCCEEDED);
  LL_ASSERT_OK_AND_ASSIGN(job, Get(gang.job_id(), true));
  EXPECT_EQ(job.epoch(), 1);
  EXPECT_EQ(job.steps_size(), 2);
}

TEST_F(CoordinatorTest, CancelStopsTheGangAndWaitsForItsEnd) {
  Start();
  auto agent = Agent("w1", 1);
  agent->SayHello();
  agent->TakeWelcome();
  LL_ASSERT_OK_AND_ASSIGN(v1::SubmitResponse submitted, Submit(Request()));
  const v1::StartGang gang = agent->TakeStart();
  agent->ReportTraining(gang);
  AwaitState(gang.job_id(), v1::RUNNING);
  v1::CancelRequest cancel;
  cancel.set_job_id(gang.job_id());
  LL_ASSERT_OK_AND_ASSIGN(v1::Job job, CallOnce<v1::Job>(*jobs_, &v1::Jobs::Stub::Cancel, cancel));
  EXPECT_EQ(job.state(), v1::CANCELLING);
  EXPECT_EQ(agent->TakeStop().job_id(), gang.job_id());
  v1::AgentMessage exit;
  v1::ExitReport* report = agent->NewReport(exit, gang, 0)->mutable_exit();
  report->set_signal(9);
  report->set_ordered(true);
  agent->Send(exit);
  AwaitState(gang.job_id(), v1::CANCELLED);
  cancel.set_job_id("job-000000000000");
  EXPECT_THAT(CallOnce<v1::Job>(*jobs_, &v1::Jobs::Stub::Cancel, cancel),
              StatusIs(absl::StatusCode::kNotFound, "job-"));
}

TEST_F(CoordinatorTest, ALiveWorkersNameIsTaken) {
  Start();
  auto first = Agent("w1", 1, "i1");
  first->SayHello();
  first->TakeWelcome();
  auto second = Agent("w1", 1, "i2");
  second->SayHello();
  EXPECT_THAT(second->End(), StatusIs(absl::StatusCode::kAlreadyExists, "w1"));
  // The same process on a new connection takes over.
  auto again = Agent("w1", 1, "i1");
  again->SayHello();
  again->TakeWelcome();
  EXPECT_THAT(first->End(), StatusIs(absl::StatusCode::kAborted, "newer session"));
}

TEST_F(CoordinatorTest, StrangersMessagesEndTheSession) {
  Start();
  auto silent = Agent("w1", 1);
  v1::AgentMessage message;
  message.mutable_heartbeat();
  silent->Send(message);
  EXPECT_THAT(silent->End(), StatusIs(absl::StatusCode::kInvalidArgument, "hello"));
  auto old = Agent("w2", 1);
  old->hello().set_protocol_version(99);
  old->SayHello();
  EXPECT_THAT(old->End(), StatusIs(absl::StatusCode::kFailedPrecondition, "99"));
  auto future = Agent("w3", 1);
  future->hello().set_highest_term(1000);
  future->SayHello();
  EXPECT_THAT(future->End(), StatusIs(absl::StatusCode::kFailedPrecondition, "term 1000"));
}

TEST_F(CoordinatorTest, TelemetryOfAnothersGangIsNotTaken) {
  Start();
  auto owner = Agent("w1", 1);
  owner->SayHello();
  owner->TakeWelcome();
  LL_ASSERT_OK(Submit(Request()));
  const v1::StartGang gang = owner->TakeStart();
  auto other = Agent("w2", 0);
  other->SayHello();
  other->TakeWelcome();
  other->SendTelemetry(gang, v1::Telemetry::LOG, 0, "forged");
  v1::AgentMessage beat;
  beat.mutable_heartbeat()->set_sequence(1);
  other->Send(beat);
  const auto next = other->Take(
      [](const auto& m) { return m.has_telemetry_ack() || m.has_heartbeat_ack(); }, "an ack");
  EXPECT_TRUE(next.has_heartbeat_ack());
  EXPECT_FALSE(FileExists(under_test_.options.data_dir + "/telemetry/" + gang.job_id() +
                          "/e0001/rank-00.log"));
}

TEST_F(CoordinatorTest, FullDiskRefusesBeforeTheAnswerAndHealsByItself) {
  std::atomic<bool> full{false};
  Start([&](std::unique_ptr<Store> store) {
    return std::make_unique<FullDiskStore>(std::move(store), full);
  });
  LL_ASSERT_OK(Submit(Request(1, "before")));
  full = true;
  EXPECT_THAT(Submit(Request(1, "r")), StatusIs(absl::StatusCode::kResourceExhausted, "no space"));
  full = false;
  LL_ASSERT_OK_AND_ASSIGN(v1::SubmitResponse after, Submit(Request(1, "r")));
  EXPECT_FALSE(after.existed());
  LL_ASSERT_OK_AND_ASSIGN(
      v1::ListResponse list,
      CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, v1::ListRequest()));
  EXPECT_EQ(list.jobs_size(), 2);
}

TEST_F(CoordinatorTest, PagesStayInOrderWhileJobsArrive) {
  Start();
  std::vector<std::string> submitted;
  for (int i = 0; i < 25; ++i) {
    LL_ASSERT_OK_AND_ASSIGN(v1::SubmitResponse got, Submit(Request()));
    submitted.push_back(got.job().job_id());
  }
  std::vector<std::string> listed;
  v1::ListRequest request;
  request.set_page_size(10);
  do {
    LL_ASSERT_OK_AND_ASSIGN(v1::ListResponse page,
                            CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, request));
    for (const v1::Job& job : page.jobs()) listed.push_back(job.job_id());
    request.set_page_token(page.next_page_token());
    LL_ASSERT_OK(Submit(Request()));  // newer than everything listed so far
  } while (!request.page_token().empty());
  EXPECT_EQ(listed, std::vector<std::string>(submitted.rbegin(), submitted.rend()));
  request.set_page_token("x");
  EXPECT_THAT(CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, request),
              StatusIs(absl::StatusCode::kInvalidArgument, "page_token"));
  request.set_page_size(1001);
  EXPECT_THAT(CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, request),
              StatusIs(absl::StatusCode::kInvalidArgument, "page_size"));
}

// ---- several jobs at once

void ReportCheckpoint(ScriptedAgent& agent, const v1::StartGang& gang, const std::string& path) {
  v1::AgentMessage message;
  v1::CheckpointReport* report = agent.NewReport(message, gang, 0)->mutable_checkpoint();
  report->set_step(3);
  report->set_path(path);
  agent.Send(message);
}

TEST_F(CoordinatorTest, SeveralJobsComeTogetherOrNotAtAll) {
  Start();
  v1::SubmitAllRequest request;
  request.set_request_id("both");
  for (const char* name : {"second", "first"}) {
    v1::SubmitMember* member = request.add_members();
    member->set_name(name);
    *member->mutable_spec() = Request().spec();
    member->mutable_spec()->set_name(name);
    (*member->mutable_spec()->mutable_labels())["array"] = "pair";
  }
  request.mutable_members(0)->mutable_spec()->add_after("first");
  const auto submit = [&] {
    return CallOnce<v1::SubmitAllResponse>(*jobs_, &v1::Jobs::Stub::SubmitAll, request);
  };
  request.mutable_members(0)->mutable_spec()->set_queue("nowhere");
  EXPECT_THAT(submit(), StatusIs(absl::StatusCode::kNotFound, "second: queue: there is no queue"));
  EXPECT_EQ(CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, v1::ListRequest())
                .value()
                .jobs_size(),
            0);
  request.mutable_members(0)->mutable_spec()->clear_queue();
  LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitAllResponse made, submit());
  EXPECT_FALSE(made.existed());
  ASSERT_EQ(made.jobs_size(), 2);
  EXPECT_EQ(made.jobs(0).spec().name(), "second");
  EXPECT_EQ(made.jobs(0).state(), v1::BLOCKED);
  EXPECT_THAT(made.jobs(0).reason(), HasSubstr(made.jobs(1).job_id()));
  EXPECT_EQ(made.jobs(1).state(), v1::QUEUED);
  Restart();
  LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitAllResponse again, submit());
  EXPECT_TRUE(again.existed());
  ASSERT_EQ(again.jobs_size(), 2);
  for (int i : {0, 1}) EXPECT_EQ(again.jobs(i).job_id(), made.jobs(i).job_id());
  request.mutable_members(1)->mutable_spec()->set_max_steps(9);
  EXPECT_THAT(submit(), StatusIs(absl::StatusCode::kAlreadyExists, "both"));

  LL_ASSERT_OK(Submit(Request()));
  v1::ListRequest list;
  (*list.mutable_labels())["array"] = "pair";
  LL_ASSERT_OK_AND_ASSIGN(const v1::ListResponse found,
                          CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, list));
  EXPECT_EQ(found.jobs_size(), 2);
  EXPECT_EQ(found.jobs(0).spec().labels().at("array"), "pair");
  (*list.mutable_labels())["array"] = "other";
  EXPECT_EQ(CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, list).value().jobs_size(), 0);
  (*list.mutable_labels())["array"] = "";
  EXPECT_EQ(CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, list).value().jobs_size(), 2);
}

TEST_F(CoordinatorTest, StagesStartFromEachOthersCheckpoints) {
  Start();
  auto agent = Agent("w1", 1);
  agent->SayHello();
  agent->TakeWelcome();
  v1::SubmitRequest request = Request(1, "graph");
  request.mutable_spec()->set_name("long");
  request.mutable_spec()->add_stages(512);
  request.mutable_spec()->add_stages(1024);
  LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitResponse made, Submit(request));
  ASSERT_EQ(made.members_size(), 3);
  EXPECT_EQ(made.job().job_id(), made.members(2).job_id());
  EXPECT_EQ(made.members(2).spec().name(), "long-merge");

  v1::StartGang gang = agent->TakeStart();
  EXPECT_EQ(gang.job_id(), made.members(0).job_id());
  EXPECT_EQ(gang.spec().context_length(), 512);
  EXPECT_EQ(gang.spec().max_steps(), 1);
  EXPECT_FALSE(gang.spec().has_adapter());
  agent->ReportTraining(gang);
  ReportCheckpoint(*agent, gang, "/jobs/a/step-3");
  agent->ReportExit(gang, 0);
  gang = agent->TakeStart();
  EXPECT_EQ(gang.job_id(), made.members(1).job_id());
  EXPECT_EQ(gang.spec().context_length(), 1024);
  EXPECT_EQ(gang.spec().max_steps(), 2);
  EXPECT_EQ(gang.spec().model(), model());
  EXPECT_EQ(gang.spec().adapter(), "/jobs/a/step-3");
  agent->ReportTraining(gang);
  ReportCheckpoint(*agent, gang, "/jobs/b/step-3");
  agent->ReportExit(gang, 0);
  gang = agent->TakeStart();
  EXPECT_EQ(gang.spec().kind(), "merge");
  EXPECT_EQ(gang.spec().adapter(), "/jobs/b/step-3");
  agent->ReportTraining(gang);
  agent->ReportExit(gang, 0);
  AwaitState(made.job().job_id(), v1::SUCCEEDED);
  LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitResponse again, Submit(request));
  EXPECT_TRUE(again.existed());
  EXPECT_EQ(again.members(0).job_id(), made.members(0).job_id());
}

TEST_F(CoordinatorTest, AFullTrainingGoesOnWithTheWeightsThemselves) {
  Start();
  auto agent = Agent("w1", 1);
  agent->SayHello();
  agent->TakeWelcome();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_method("full");
  request.mutable_spec()->add_stages(512);
  request.mutable_spec()->add_stages(1024);
  LL_ASSERT_OK(Submit(request));
  v1::StartGang gang = agent->TakeStart();
  EXPECT_EQ(gang.spec().model(), model());
  agent->ReportTraining(gang);
  ReportCheckpoint(*agent, gang, "/jobs/a/step-3");
  agent->ReportExit(gang, 0);
  gang = agent->TakeStart();
  EXPECT_EQ(gang.spec().model(), "/jobs/a/step-3");
  EXPECT_FALSE(gang.spec().has_adapter());
}

TEST_F(CoordinatorTest, ADeadlineCountsFromTheSubmit) {
  Start();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_deadline(1);
  LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitResponse made, Submit(request));
  AwaitState(made.job().job_id(), v1::FAILED);
  LL_ASSERT_OK_AND_ASSIGN(const v1::Job job, Get(made.job().job_id()));
  EXPECT_THAT(job.reason(), HasSubstr("its deadline"));
}

TEST_F(CoordinatorTest, RegistriesAreChecked) {
  Start();
  v1::AddModelRequest add;
  add.set_name("70b");
  add.set_path(model());
  EXPECT_THAT(CallOnce<v1::Model>(*admin_, &v1::Admin::Stub::AddModel, add),
              StatusIs(absl::StatusCode::kInvalidArgument, "weights of 70b"));
  add.set_name("tiny");
  LL_ASSERT_OK_AND_ASSIGN(v1::Model model_added,
                          CallOnce<v1::Model>(*admin_, &v1::Admin::Stub::AddModel, add));
  EXPECT_FALSE(model_added.verified());  // no worker has looked
  v1::AddDataRequest add_data;
  add_data.set_name("bible");
  add_data.set_path(data());
  add_data.set_is_default(true);
  LL_ASSERT_OK(CallOnce<v1::Data>(*admin_, &v1::Admin::Stub::AddData, add_data));
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_model("tiny");
  request.mutable_spec()->clear_data();
  LL_ASSERT_OK_AND_ASSIGN(v1::SubmitResponse got, Submit(request));
  EXPECT_EQ(got.job().spec().model(), "tiny");
  EXPECT_EQ(got.job().resolved_spec().model(), model());
  EXPECT_EQ(got.job().resolved_spec().data(), data());
  LL_ASSERT_OK_AND_ASSIGN(v1::ListModelsResponse models,
                          CallOnce<v1::ListModelsResponse>(*admin_, &v1::Admin::Stub::ListModels,
                                                           v1::ListModelsRequest()));
  EXPECT_EQ(models.models_size(), BuiltInModelNames().size() + 1);  // and ours
}

TEST_F(CoordinatorTest, NothingIsSaidToStrangers) {
  Start();
  const auto channel =
      grpc::CreateChannel(under_test_.address(), grpc::InsecureChannelCredentials());
  auto jobs = v1::Jobs::NewStub(channel);
  EXPECT_THAT(CallOnce<v1::ListResponse>(*jobs, &v1::Jobs::Stub::List, v1::ListRequest()),
              StatusIs(absl::StatusCode::kUnauthenticated, "token"));
  grpc::ClientContext watch_context;
  SetDeadline(watch_context);
  auto watch = jobs->Watch(&watch_context, v1::WatchRequest());
  v1::WatchResponse ignored;
  EXPECT_FALSE(watch->Read(&ignored));
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  ScriptedAgent agent(channel, "w", "i");
  agent.SayHello();
  EXPECT_THAT(agent.End(), StatusIs(absl::StatusCode::kUnauthenticated, "token"));

  // Reflection, raw: without a token the stream ends without an answer.
  grpc::GenericStub generic(channel);
  grpc::ClientContext context;
  SetDeadline(context);
  grpc::CompletionQueue queue;
  auto call = generic.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  void* tag;
  bool ok;
  call->StartCall(&queue);
  queue.Next(&tag, &ok);
  grpc::Status status;
  call->Finish(&status, &queue);
  queue.Next(&tag, &ok);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(CoordinatorTest, WhatIsRegisteredIsCheckedOnEveryWorker) {
  Start();
  auto w1 = Agent("w1", 1), w2 = Agent("w2", 1);
  for (auto* agent : {w1.get(), w2.get()}) {
    agent->SayHello();
    agent->TakeWelcome();
  }
  const auto asked = [](ScriptedAgent& agent) {
    return agent.Take([](const auto& m) { return m.has_check(); }, "check").check();
  };
  const auto answer = [](ScriptedAgent& agent, const v1::CheckPath& check,
                         const std::string& refused) {
    v1::AgentMessage message;
    message.mutable_checked()->set_id(check.id());
    message.mutable_checked()->set_refused(refused);
    agent.Send(message);
  };
  v1::AddModelRequest add;
  add.set_name("tiny");
  add.set_path(model());
  std::thread refusing([&] {
    answer(*w1, asked(*w1), "");
    const v1::CheckPath check = asked(*w2);
    EXPECT_EQ(check.kind(), v1::CheckPath::MODEL);
    EXPECT_EQ(check.path(), model());
    answer(*w2, check, "no such folder here");
  });
  EXPECT_THAT(CallOnce<v1::Model>(*admin_, &v1::Admin::Stub::AddModel, add),
              StatusIs(absl::StatusCode::kFailedPrecondition, "worker w2: no such folder here"));
  refusing.join();
  // A worker that leaves is not waited for.
  std::thread agreeing([&] {
    answer(*w1, asked(*w1), "");
    asked(*w2);
    w2->Hang();
  });
  LL_ASSERT_OK_AND_ASSIGN(v1::Model model_added,
                          CallOnce<v1::Model>(*admin_, &v1::Admin::Stub::AddModel, add));
  agreeing.join();
  EXPECT_TRUE(model_added.verified());
}

TEST_F(CoordinatorTest, TheStandardHealthServiceAnswers) {
  Start();
  grpc::GenericStub generic(under_test_.Channel());
  grpc::ClientContext context;
  SetDeadline(context);
  grpc::CompletionQueue queue;
  const grpc::Slice nothing("", 0);
  const grpc::ByteBuffer no_fields(&nothing, 1);
  auto call = generic.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", no_fields, &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, &queue);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  ASSERT_TRUE(status.ok()) << status.error_message();
  grpc::Slice bytes;
  ASSERT_TRUE(answer.DumpToSingleSlice(&bytes).ok());
  // HealthCheckResponse{status: SERVING}
  EXPECT_EQ(std::string(bytes.begin(), bytes.end()), "\x08\x01");
}

TEST_F(CoordinatorTest, TooLargeAMessageIsRefused) {
  Start();
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_name(std::string(5 << 20, 'x'));
  EXPECT_EQ(Submit(request).status().code(), absl::StatusCode::kResourceExhausted);
  request.mutable_spec()->set_name(std::string(300 << 10, 'x'));
  EXPECT_THAT(Submit(request), StatusIs(absl::StatusCode::kInvalidArgument, "256 KiB"));
}

TEST_F(CoordinatorTest, StopsSoonWithStreamsOpen) {
  Start();
  auto agent = Agent("w1", 1);
  agent->SayHello();
  agent->TakeWelcome();
  LL_ASSERT_OK_AND_ASSIGN(v1::SubmitResponse submitted, Submit(Request(4)));  // waits for slots
  grpc::ClientContext context;
  v1::WatchRequest request;
  request.set_job_id(submitted.job().job_id());
  auto stream = jobs_->Watch(&context, request);
  v1::WatchResponse first;
  ASSERT_TRUE(stream->Read(&first));
  const absl::Time before = absl::Now();
  under_test_.Stop();
  EXPECT_LT(absl::Now() - before, absl::Seconds(5));
  EXPECT_FALSE(stream->Read(&first));
}

// ---- who may listen where, and certificates

TEST_F(CoordinatorTest, AnOpenBindIsRefused) {
  under_test_.options.listen = "0.0.0.0:0";
  EXPECT_THAT(under_test_.Start(), StatusIs(absl::StatusCode::kFailedPrecondition, "TLS"));
  under_test_.options.tls_cert = "c.pem";
  under_test_.options.tls_key = "k.pem";
  EXPECT_THAT(under_test_.Start(), StatusIs(absl::StatusCode::kFailedPrecondition, "--tokens"));
  under_test_.options.listen = "127.0.0.1:0";
  under_test_.options.http = "0.0.0.0:0";
  EXPECT_THAT(under_test_.Start(), StatusIs(absl::StatusCode::kFailedPrecondition, "http"));
  EXPECT_FALSE(IsDirectory(under_test_.options.data_dir));
}

TEST_F(CoordinatorTest, APortInUseIsOneLineThatNamesTheFlag) {
  Start();
  CoordinatorUnderTest second;
  second.options.listen = under_test_.address();
  const absl::Status status = second.Start();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, under_test_.address()));
  EXPECT_EQ(ErrorField(status), "listen");
}

class TlsTest : public CoordinatorTest {
 protected:
  void SetUp() override {
    CoordinatorTest::SetUp();
    const std::string d = under_test_.dir() + "/";
    Run("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout " + d +
        "ca.key -out " + d + "ca.pem");
    Make("server", "subjectAltName=DNS:localhost,IP:127.0.0.1");
    Make("w1", "subjectAltName=DNS:w1");
    under_test_.options.tls_cert = d + "server.pem";
    under_test_.options.tls_key = d + "server.key";
    under_test_.options.tls_client_ca = d + "ca.pem";
    under_test_.options.tokens = d + "tokens";
    LL_ASSERT_OK(WriteFileAtomic(d + "tokens",
                                 absl::StrCat("{\"token_sha256\":\"", Sha256Hex("secret"),
                                              "\",\"user\":\"ann\",\"scopes\":[\"admin\"]}\n")));
    LL_ASSERT_OK(under_test_.Start());
  }
  static void Run(const std::string& command) {
    ASSERT_EQ(std::system((command + " 2>/dev/null").c_str()), 0) << command;
  }
  void Make(const std::string& name, const std::string& alternative) {
    const std::string f = under_test_.dir() + "/" + name;
    const std::string ca = under_test_.dir() + "/ca";
    LL_ASSERT_OK(WriteFileAtomic(f + ".ext", alternative + "\n"));
    Run("openssl req -newkey rsa:2048 -nodes -subj /CN=" + name + " -keyout " + f + ".key -out " +
        f + ".csr");
    Run("openssl x509 -req -days 2 -in " + f + ".csr -CA " + ca + ".pem -CAkey " + ca +
        ".key -CAcreateserial -extfile " + f + ".ext -out " + f + ".pem");
  }
  std::shared_ptr<grpc::Channel> Secure(const std::string& certificate, const std::string& token) {
    const std::string d = under_test_.dir() + "/";
    ChannelConfig config{
        .addresses = {under_test_.address()}, .ca_file = d + "ca.pem", .token = token};
    if (!certificate.empty()) {
      config.cert_file = d + certificate + ".pem";
      config.key_file = d + certificate + ".key";
    }
    auto channel = MakeChannel(config);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return *channel;
  }
};

TEST_F(TlsTest, UsersComeWithTokensAndWorkersWithTheirOwnCertificate) {
  auto jobs = v1::Jobs::NewStub(Secure("", "secret"));
  LL_EXPECT_OK(CallOnce<v1::ListResponse>(*jobs, &v1::Jobs::Stub::List, v1::ListRequest()));
  jobs = v1::Jobs::NewStub(Secure("", "wrong"));
  EXPECT_THAT(CallOnce<v1::ListResponse>(*jobs, &v1::Jobs::Stub::List, v1::ListRequest()),
              StatusIs(absl::StatusCode::kUnauthenticated, "not known"));
  jobs = v1::Jobs::NewStub(Secure("w1", ""));  // a worker is not a user
  EXPECT_THAT(CallOnce<v1::ListResponse>(*jobs, &v1::Jobs::Stub::List, v1::ListRequest()),
              StatusIs(absl::StatusCode::kUnauthenticated, "token"));

  ScriptedAgent worker(Secure("w1", ""), "w1", "i1");
  worker.SayHello();
  worker.TakeWelcome();
  ScriptedAgent impostor(Secure("w1", ""), "w2", "i1");
  impostor.SayHello();
  EXPECT_THAT(impostor.End(), StatusIs(absl::StatusCode::kPermissionDenied, "not for worker w2"));
  ScriptedAgent user(Secure("", "secret"), "w3", "i1");
  user.SayHello();
  EXPECT_THAT(user.End(), StatusIs(absl::StatusCode::kUnauthenticated, "certificate"));
}

TEST_F(TlsTest, PlaintextGetsNothing) {
  auto jobs = v1::Jobs::NewStub(
      grpc::CreateChannel(under_test_.address(), grpc::InsecureChannelCredentials()));
  EXPECT_EQ(
      CallOnce<v1::ListResponse>(*jobs, &v1::Jobs::Stub::List, v1::ListRequest()).status().code(),
      absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace ll
