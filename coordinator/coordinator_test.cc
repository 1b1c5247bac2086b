// The life of a job: submit, agents, restarts, cancel, a full disk.
#include <atomic>
#include <set>

#include "absl/synchronization/notification.h"
#include "coordinator/coordinator_case.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/sqlite_store.h"

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
  absl::StatusOr<int64_t> RaiseTerm(int64_t above) override { return store_->RaiseTerm(above); }
  std::string Description() const override { return store_->Description(); }

 private:
  std::unique_ptr<Store> store_;
  std::atomic<bool>& full_;
};

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

// The store of a coordinator is put back; meanwhile agents have obeyed later terms and run a later
// attempt.
TEST_F(CoordinatorTest, ARestoredCoordinatorRisesAboveWhatAgentsHaveObeyed) {
  Start();
  auto agent = Agent("w1", 1);
  agent->SayHello();
  agent->TakeWelcome();
  LL_ASSERT_OK_AND_ASSIGN(const auto submitted, Submit(Request()));
  const std::string id = submitted.job().job_id();
  const v1::StartGang first = agent->TakeStart();
  agent->ReportTraining(first);
  AwaitState(id, v1::RUNNING);
  const std::string data_dir = under_test_.options.data_dir;
  LL_ASSERT_OK_AND_ASSIGN(const StoreSnapshot taken, ReadSqlite(data_dir));
  LL_ASSERT_OK_AND_ASSIGN(
      const Backup backup,
      DecodeBackup(EncodeBackup({taken, absl::FromUnixSeconds(1'700'000'000), "sqlite"})));
  agent.reset();
  under_test_.Stop();

  // As it is, an older copy is refused by who has obeyed a later coordinator.
  const auto later = [&](const std::string& incarnation) {
    auto out = Agent("w1", 1, incarnation);
    out->hello().set_highest_term(1000);
    v1::HeldGang* gang = out->hello().add_gangs();
    gang->set_job_id(id);
    gang->set_epoch(700);
    gang->add_ranks();
    return out;
  };
  Start();
  auto refused = later("i1");
  refused->SayHello();
  EXPECT_THAT(refused->End(),
              StatusIs(absl::StatusCode::kFailedPrecondition, "ll-coordinator restore"));
  under_test_.Stop();

  {
    LL_ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore(data_dir));
    LL_ASSERT_OK_AND_ASSIGN(const StoredState state, Restored(backup, absl::Now()));
    LL_ASSERT_OK(store->RaiseTerm(backup.snapshot.term).status());
    LL_ASSERT_OK(store->Replace(RecordsOf(state), absl::Now()));
  }
  Start();
  auto back = later("i1");
  back->SayHello();
  const v1::CoordinatorMessage welcome =
      back->Take([](const auto& m) { return m.has_welcome(); }, "welcome");
  EXPECT_GT(welcome.term(), 1000);
  ASSERT_EQ(welcome.welcome().verdicts_size(), 1);
  EXPECT_FALSE(welcome.welcome().verdicts(0).keep());
  // The slot is free when the rank of the later attempt has ended.
  v1::StartGang gone;
  gone.set_job_id(id);
  gone.set_epoch(700);
  gone.add_ranks();
  back->ReportExit(gone, 0, /*ordered=*/true);
  const v1::StartGang next = back->TakeStart();
  EXPECT_EQ(next.job_id(), id);
  EXPECT_GT(next.epoch(), 700);
  LL_ASSERT_OK_AND_ASSIGN(const v1::Job job, Get(id));
  EXPECT_EQ(job.retries(), 0) << "nobody is charged for a restore";
}

}  // namespace
}  // namespace ll
