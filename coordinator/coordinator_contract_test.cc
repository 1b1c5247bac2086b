// What holds for every method, asked of each one that the protos describe: whoever adds a method is
// told here what is missing.
#include <map>
#include <set>
#include <thread>

#include "base/leader_error.h"
#include "coordinator/coordinator_case.h"
#include "coordinator/store/postgres_for_test.h"

namespace ll {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::MethodOptions;
using ::testing::HasSubstr;

std::vector<const MethodDescriptor*> Methods() {
  std::vector<const MethodDescriptor*> out;
  for (const auto* file :
       {v1::GetRequest::descriptor()->file(), v1::AgentMessage::descriptor()->file(),
        v1::VersionRequest::descriptor()->file(), v1::Schedule::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m)
        out.push_back(file->service(s)->method(m));
    }
  }
  return out;
}
std::string PathOf(const MethodDescriptor& method) {
  return absl::StrCat("/", method.service()->full_name(), "/", method.name());
}
// Its messages carry sequences, epochs and terms; a join token is good once.
bool IsAgents(const MethodDescriptor& method) { return method.service()->name() == "Workers"; }

std::set<std::string> Idempotent() {
  std::set<std::string> out;
  for (const MethodDescriptor* method : Methods()) {
    if (method->options().idempotency_level() == MethodOptions::IDEMPOTENT)
      out.insert(PathOf(*method));
  }
  return out;
}

TEST(Contract, EveryChangeHasAKeyOrIsTheSameTwice) {
  int keys = 0;
  for (const MethodDescriptor* method : Methods()) {
    if (IsAgents(*method) ||
        method->options().idempotency_level() != MethodOptions::IDEMPOTENCY_UNKNOWN)
      continue;
    const FieldDescriptor* key = method->input_type()->FindFieldByName("request_id");
    EXPECT_TRUE(key != nullptr && key->type() == FieldDescriptor::TYPE_STRING)
        << PathOf(*method)
        << ": give its request a request_id, or state an idempotency_level in the proto";
    ++keys;
  }
  EXPECT_EQ(keys, 4);  // Submit, SubmitAll, Say, Schedules.Run
  EXPECT_EQ(Idempotent().size(), 11u);
}

class ContractTest : public CoordinatorTest {
 protected:
  void SetUp() override {
    CoordinatorTest::SetUp();
    Start();
    schedules_ = v1::Schedules::NewStub(under_test_.Channel());
  }
  void ConnectAgent() {
    agent_ = Agent("w1", 1);
    agent_->SayHello();
    agent_->TakeWelcome();
  }
  template <typename Response, typename Stub, typename Request>
  absl::Status Do(Stub& stub,
                  grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request) {
    return CallOnce<Response>(stub, method, request).status();
  }
  // Everything that a change can change, as text.
  std::string State() {
    std::string out;
    v1::ListRequest list;
    const auto jobs = CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, list);
    EXPECT_THAT(jobs, IsOk());
    for (const v1::Job& job : jobs->jobs()) {
      v1::GetRequest get;
      get.set_job_id(job.job_id());
      for (const char* path : {"job_id", "state", "epoch", "retries", "history"})
        get.mutable_read_mask()->add_paths(path);
      absl::StrAppend(
          &out, CallOnce<v1::Job>(*jobs_, &v1::Jobs::Stub::Get, get)->ShortDebugString(), "\n");
    }
    v1::ListSchedulesRequest schedules;
    v1::ListWorkersRequest workers;
    for (const char* path : {"worker", "cordoned", "draining", "cordon_reason"})
      workers.mutable_read_mask()->add_paths(path);
    absl::StrAppend(
        &out,
        CallOnce<v1::ListSchedulesResponse>(*schedules_, &v1::Schedules::Stub::List, schedules)
            ->ShortDebugString(),
        "\n",
        CallOnce<v1::ListWorkersResponse>(*admin_, &v1::Admin::Stub::ListWorkers, workers)
            ->ShortDebugString(),
        "\n",
        CallOnce<v1::ListQueuesResponse>(*admin_, &v1::Admin::Stub::ListQueues,
                                         v1::ListQueuesRequest())
            ->ShortDebugString(),
        "\n",
        CallOnce<v1::ListModelsResponse>(*admin_, &v1::Admin::Stub::ListModels,
                                         v1::ListModelsRequest())
            ->ShortDebugString(),
        "\n",
        CallOnce<v1::ListDataResponse>(*admin_, &v1::Admin::Stub::ListData, v1::ListDataRequest())
            ->ShortDebugString());
    return out;
  }

  std::unique_ptr<v1::Schedules::Stub> schedules_;
  std::unique_ptr<ScriptedAgent> agent_;
};

// Each method that says of itself that it is idempotent is called twice: the second call changes
// nothing, whatever it answers.
TEST_F(ContractTest, WhatIsIdempotentChangesNothingTheSecondTime) {
  std::string job;
  const auto jobs = [&](auto method, auto request) {
    request.set_job_id(job);
    return Do<v1::Job>(*jobs_, method, request);
  };
  const auto named = [&](auto method, auto request) {
    request.set_name("nightly");
    return Do<v1::Schedule>(*schedules_, method, request);
  };
  using Call = std::function<absl::Status()>;
  // In an order in which each first call changes something.
  const std::vector<std::pair<std::string, Call>> calls = {
      {"/ll.v1.Admin/AddModel",
       [&] {
         v1::AddModelRequest request;
         request.set_name("small");
         request.set_path(model());
         return Do<v1::Model>(*admin_, &v1::Admin::Stub::AddModel, request);
       }},
      {"/ll.v1.Admin/AddData",
       [&] {
         v1::AddDataRequest request;
         request.set_name("digits");
         request.set_path(data());
         return Do<v1::Data>(*admin_, &v1::Admin::Stub::AddData, request);
       }},
      {"/ll.v1.Admin/SetQueue",
       [&] {
         v1::SetQueueRequest request;
         request.mutable_queue()->set_name("night");
         request.mutable_queue()->set_weight(2);
         return Do<v1::Queue>(*admin_, &v1::Admin::Stub::SetQueue, request);
       }},
      {"/ll.v1.Admin/CordonWorker",
       [&] {
         v1::CordonWorkerRequest request;
         request.set_worker("w1");
         return Do<v1::Worker>(*admin_, &v1::Admin::Stub::CordonWorker, request);
       }},
      {"/ll.v1.Schedules/Create",
       [&] {
         v1::CreateScheduleRequest request;
         request.mutable_schedule()->set_name("nightly");
         request.mutable_schedule()->set_cron("0 0 1 1 *");
         *request.mutable_schedule()->mutable_spec() = Request().spec();
         return Do<v1::Schedule>(*schedules_, &v1::Schedules::Stub::Create, request);
       }},
      {"/ll.v1.Schedules/Pause",
       [&] { return named(&v1::Schedules::Stub::Pause, v1::PauseScheduleRequest()); }},
      {"/ll.v1.Schedules/Resume",
       [&] { return named(&v1::Schedules::Stub::Resume, v1::ResumeScheduleRequest()); }},
      {"/ll.v1.Schedules/Delete",
       [&] { return named(&v1::Schedules::Stub::Delete, v1::DeleteScheduleRequest()); }},
      {"/ll.v1.Jobs/Pause", [&] { return jobs(&v1::Jobs::Stub::Pause, v1::PauseRequest()); }},
      {"/ll.v1.Jobs/Resume", [&] { return jobs(&v1::Jobs::Stub::Resume, v1::ResumeRequest()); }},
      {"/ll.v1.Jobs/Cancel", [&] { return jobs(&v1::Jobs::Stub::Cancel, v1::CancelRequest()); }},
  };
  std::set<std::string> tried;
  for (const auto& [path, call] : calls) {
    tried.insert(path);
    if (path == "/ll.v1.Admin/SetQueue") {  // from here on; it would be asked about the paths above
      ConnectAgent();
      const auto submitted = Submit(Request(100));  // more than there is: it waits
      LL_ASSERT_OK(submitted);
      job = submitted->job().job_id();
    }
    const std::string before = State();
    const absl::Status first = call();
    ASSERT_THAT(first, IsOk()) << path;
    const std::string once = State();
    EXPECT_NE(once, before) << path << " did nothing";
    const absl::Status second = call();
    EXPECT_EQ(State(), once) << path;
    // A repeat is told so or is content; it never finds the service broken.
    EXPECT_TRUE(second.ok() || absl::IsFailedPrecondition(second) || absl::IsNotFound(second))
        << path << ": " << second;
  }
  EXPECT_EQ(tried, Idempotent());
}

TEST_F(ContractTest, AReadGivesWhatItsMaskNames) {
  ConnectAgent();
  const auto submitted = Submit(Request(100));
  LL_ASSERT_OK(submitted);
  v1::GetRequest get;
  get.set_job_id(submitted->job().job_id());
  get.mutable_read_mask()->add_paths("state");
  get.mutable_read_mask()->add_paths("spec.seed");
  get.mutable_read_mask()->add_paths("spec.max_steps");
  auto job = CallOnce<v1::Job>(*jobs_, &v1::Jobs::Stub::Get, get);
  LL_ASSERT_OK(job);
  v1::Job expected;
  expected.set_state(v1::QUEUED);
  expected.mutable_spec()->set_max_steps(3);
  EXPECT_EQ(job->ShortDebugString(), expected.ShortDebugString());
  get.mutable_read_mask()->clear_paths();
  get.mutable_read_mask()->add_paths("*");
  job = CallOnce<v1::Job>(*jobs_, &v1::Jobs::Stub::Get, get);
  EXPECT_TRUE(job->has_resolved_spec() && job->history_size() == 1);

  v1::ListRequest list;
  list.mutable_read_mask()->add_paths("job_id");
  const auto jobs = CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, list);
  LL_ASSERT_OK(jobs);
  expected.Clear();
  expected.set_job_id(submitted->job().job_id());
  EXPECT_EQ(jobs->jobs(0).ShortDebugString(), expected.ShortDebugString());

  v1::ListWorkersRequest workers;
  workers.mutable_read_mask()->add_paths("worker");
  EXPECT_EQ(CallOnce<v1::ListWorkersResponse>(*admin_, &v1::Admin::Stub::ListWorkers, workers)
                ->ShortDebugString(),
            "workers { worker: \"w1\" }");

  for (const char* bad :
       {"", "stat", "spec.", "state.x", "spec.seed.x", "spec,state", "job_id\n"}) {
    v1::ListRequest request;
    request.mutable_read_mask()->add_paths(bad);
    EXPECT_THAT(CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, request),
                StatusIs(absl::StatusCode::kInvalidArgument, "read_mask"))
        << bad;
    get.mutable_read_mask()->set_paths(0, bad);
    EXPECT_FALSE(CallOnce<v1::Job>(*jobs_, &v1::Jobs::Stub::Get, get).ok()) << bad;
    v1::GetScheduleRequest schedule;
    schedule.mutable_read_mask()->add_paths(bad);
    EXPECT_THAT(CallOnce<v1::Schedule>(*schedules_, &v1::Schedules::Stub::Get, schedule),
                StatusIs(absl::StatusCode::kInvalidArgument, "read_mask"))
        << bad;
  }
}

// A message with a request id is handed to the rank once, however often the call is repeated.
TEST_F(ContractTest, AMessageIsSaidOnce) {
  ConnectAgent();
  v1::SubmitRequest submit;
  submit.mutable_spec()->set_kind("generate");
  submit.mutable_spec()->set_model(model());
  const auto submitted = Submit(submit);
  LL_ASSERT_OK(submitted);
  const v1::StartGang gang = agent_->TakeStart();
  agent_->ReportTraining(gang);
  AwaitState(gang.job_id(), v1::RUNNING);
  const auto say = [&](const std::string& id, const std::string& text) {
    v1::SayRequest request;
    request.set_job_id(gang.job_id());
    request.set_request_id(id);
    (*request.mutable_message()->mutable_fields())["text"].set_string_value(text);
    return CallOnce<v1::SayResponse>(*jobs_, &v1::Jobs::Stub::Say, request).status();
  };
  const auto heard = [&] {
    return agent_->Take([](const auto& m) { return m.has_say(); }, "say").say().line();
  };
  LL_EXPECT_OK(say("one", "first"));
  LL_EXPECT_OK(say("one", "first"));
  LL_EXPECT_OK(say("", "second"));
  LL_EXPECT_OK(say("", "third"));
  EXPECT_THAT(heard(), HasSubstr("first"));
  EXPECT_THAT(heard(), HasSubstr("second"));
  EXPECT_THAT(heard(), HasSubstr("third"));
  EXPECT_FALSE(say("a key with blanks", "no").ok());
}

// Whatever is asked of a coordinator that does not lead is answered with the leader's address, by
// every method, streams too.
TEST(Contract, AStandbySendsEveryCallToTheLeader) {
  PostgresForTest::Get().Wipe();
  CoordinatorUnderTest leader, standby;
  for (CoordinatorUnderTest* one : {&leader, &standby}) {
    one->options.store = PostgresForTest::Get().uri();
    one->options.leader_lease_seconds = 2;
    LL_ASSERT_OK(one->Start());
    if (one != &leader) break;
    const absl::Time deadline = absl::Now() + kTestPatience;
    auto admin = v1::Admin::NewStub(leader.Channel());
    while (!CallOnce<v1::VersionResponse>(*admin, &v1::Admin::Stub::Version, v1::VersionRequest())
                .ok()) {
      ASSERT_LT(absl::Now(), deadline);
      absl::SleepFor(absl::Milliseconds(10));
    }
  }
  const auto channel = standby.Channel();
  // Until it has looked who leads it says that it does not know yet.
  const absl::Time deadline = absl::Now() + kTestPatience;
  const auto ask = [&](const MethodDescriptor& method) {
    return FromGrpcStatus(CallRaw(channel, PathOf(method), Empty()));
  };
  while (ErrorLeader(ask(*Methods()[0])) != leader.address() && absl::Now() < deadline)
    absl::SleepFor(absl::Milliseconds(10));
  // All at once: the channel tries each call several times, as clients do.
  const std::vector<const MethodDescriptor*> methods = Methods();
  std::vector<absl::Status> statuses(methods.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < methods.size(); ++i) {
    if (methods[i]->name() == "Join") continue;  // needs no leader: it signs with files of its own
    threads.emplace_back([&, i] { statuses[i] = ask(*methods[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(threads.size(), 29u);
  for (size_t i = 0; i < methods.size(); ++i) {
    if (methods[i]->name() == "Join") continue;
    const std::string what = absl::StrCat(PathOf(*methods[i]), ": ", statuses[i].ToString());
    EXPECT_EQ(statuses[i].code(), absl::StatusCode::kUnavailable) << what;
    EXPECT_EQ(ErrorLeader(statuses[i]), leader.address()) << what;
  }
}

}  // namespace
}  // namespace ll
