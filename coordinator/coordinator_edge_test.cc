// Registries, strangers, health, limits, TLS: what surrounds the jobs.
#include <grpcpp/generic/generic_stub.h>

#include <limits>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "coordinator/secure_case.h"
#include "model/plan/models.h"

namespace ll {
namespace {

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

TEST_F(CoordinatorTest, WorkersTellHowFastTheyAre) {
  Start();
  const auto calibration = [](const std::string& gemm) {
    return absl::StrCat(R"({"device":"cpu","host":"h","time":"2026-11-22T12:00:00Z","build":"1",)",
                        R"("gemm_flops":)", gemm,
                        R"(,"attention_flops":1e11,"memory_bandwidth":1e10,"link_bandwidth":1e9})");
  };
  v1::SubmitRequest request = Request();
  request.set_dry_run(true);
  const auto seconds = [&] {
    const auto told = Submit(request);
    return told.ok() ? told->job().forecast().duration_seconds() : -1;
  };
  const auto hello = [&](ScriptedAgent& agent, const std::string& text) {
    agent.hello().set_calibration(text);
    for (v1::Slot& slot : *agent.hello().mutable_slots()) slot.set_memory_bytes(8e9);
    agent.SayHello();
    agent.TakeWelcome();
  };
  auto unmeasured = Agent("w1", 1), fast = Agent("w2", 1), slow = Agent("w3", 1),
       odd = Agent("w4", 1);
  hello(*unmeasured, "");
  EXPECT_EQ(seconds(), 0);  // a CPU's speed is not known from its kind
  hello(*fast, calibration("8e11"));
  const double quick = seconds();
  EXPECT_GT(quick, 0);
  hello(*slow, calibration("1e11"));  // a gang may be placed there
  EXPECT_GT(seconds(), 1.2 * quick);
  const double slowest = seconds();
  hello(*odd, calibration("-1"));
  EXPECT_EQ(seconds(), slowest);
  // A host that was taken away slows no plan any more.
  v1::CordonWorkerRequest away;
  away.set_worker("w3");
  away.set_action(v1::CordonWorkerRequest::CORDON);
  LL_ASSERT_OK(CallOnce<v1::Worker>(*admin_, &v1::Admin::Stub::CordonWorker, away).status());
  EXPECT_EQ(seconds(), slowest);
  slow->Hang();
  for (int i = 0; i < 500 && seconds() != quick; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(seconds(), quick);
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

// A reason that is cut in the middle of a letter makes every answer about its job unreadable.
TEST_F(CoordinatorTest, AReasonThatIsCutStaysText) {
  Start();
  LL_ASSERT_OK_AND_ASSIGN(const v1::SubmitResponse submitted, Submit(Request()));
  v1::CancelRequest request;
  request.set_job_id(submitted.job().job_id());
  std::string reason(999, 'x');
  for (int i = 0; i < 10; ++i) reason += "\xc3\xa9";
  request.set_reason(reason);
  LL_EXPECT_OK(CallOnce<v1::Job>(*jobs_, &v1::Jobs::Stub::Cancel, request).status());
  LL_EXPECT_OK(Get(submitted.job().job_id()).status());
  LL_EXPECT_OK(
      CallOnce<v1::ListResponse>(*jobs_, &v1::Jobs::Stub::List, v1::ListRequest()).status());
}

TEST(OptionsTest, TimesThatAreNoNumbersAreRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CoordinatorOptions options;
  options.lease_seconds = nan;
  EXPECT_THAT(CheckOptions(options), StatusIs(absl::StatusCode::kInvalidArgument, "lease-seconds"));
  options = {};
  options.heartbeat_seconds = nan;
  EXPECT_THAT(CheckOptions(options),
              StatusIs(absl::StatusCode::kInvalidArgument, "heartbeat-seconds"));
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

using TlsTest = SecureTest;

TEST_F(TlsTest, UsersComeWithTokensAndWorkersWithTheirOwnCertificate) {
  auto jobs = v1::Jobs::NewStub(Secure("", "secret"));
  LL_EXPECT_OK(CallOnce<v1::ListResponse>(*jobs, &v1::Jobs::Stub::List, v1::ListRequest()));
  jobs = v1::Jobs::NewStub(Secure("", "wrong"));
  EXPECT_THAT(CallOnce<v1::ListResponse>(*jobs, &v1::Jobs::Stub::List, v1::ListRequest()),
              StatusIs(absl::StatusCode::kUnauthenticated, "not known"));
  jobs = v1::Jobs::NewStub(Secure("w1", "secret"));  // a worker is not a user, whatever it has
  EXPECT_THAT(CallOnce<v1::ListResponse>(*jobs, &v1::Jobs::Stub::List, v1::ListRequest()),
              StatusIs(absl::StatusCode::kPermissionDenied, "a worker's certificate"));

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

TEST_F(TlsTest, OnlyAnAdministratorGoesBelowOrAboveTheUsersPriorities) {
  auto bob = v1::Jobs::NewStub(Secure("", "bobs")), ann = v1::Jobs::NewStub(Secure("", "secret"));
  auto schedules = v1::Schedules::NewStub(Secure("", "bobs"));
  for (const int priority : {-1, 101}) {
    v1::SubmitRequest request = Request();
    request.mutable_spec()->set_priority(priority);
    EXPECT_THAT(CallOnce<v1::SubmitResponse>(*bob, &v1::Jobs::Stub::Submit, request),
                StatusIs(absl::StatusCode::kPermissionDenied, "priority"));
    v1::CreateScheduleRequest nightly;
    nightly.mutable_schedule()->set_name("nightly");
    nightly.mutable_schedule()->set_cron("0 2 * * *");
    *nightly.mutable_schedule()->mutable_spec() = request.spec();
    EXPECT_THAT(CallOnce<v1::Schedule>(*schedules, &v1::Schedules::Stub::Create, nightly),
                StatusIs(absl::StatusCode::kPermissionDenied, "priority"));
    request.set_request_id(absl::StrCat("ann", priority));
    LL_EXPECT_OK(CallOnce<v1::SubmitResponse>(*ann, &v1::Jobs::Stub::Submit, request));
  }
  v1::SubmitRequest request = Request();
  request.mutable_spec()->set_priority(100);
  LL_EXPECT_OK(CallOnce<v1::SubmitResponse>(*bob, &v1::Jobs::Stub::Submit, request));
}

// Every one with its field and its reason, and nothing of it is stored.
TEST_F(TlsTest, WhatTheSchedulerCannotDoIsRefused) {
  using Code = absl::StatusCode;
  auto jobs = v1::Jobs::NewStub(Secure("", "bobs"));
  auto admin = v1::Admin::NewStub(Secure("", "secret"));
  auto schedules = v1::Schedules::NewStub(Secure("", "bobs"));
  const auto queue = [&](const char* name, int max_gpus) {
    v1::SetQueueRequest request;
    request.mutable_queue()->set_name(name);
    request.mutable_queue()->set_weight(1);
    request.mutable_queue()->set_max_gpus(max_gpus);
    return CallOnce<v1::Queue>(*admin, &v1::Admin::Stub::SetQueue, request).status();
  };
  LL_ASSERT_OK(queue("closed", 0));
  LL_ASSERT_OK(queue("small", 2));
  EXPECT_THAT(queue("none", -1), StatusIs(Code::kInvalidArgument, "max_gpus: expected"));
  const auto submit = [&](const std::function<void(v1::JobSpec&)>& change) {
    v1::SubmitRequest request = Request();
    change(*request.mutable_spec());
    return CallOnce<v1::SubmitResponse>(*jobs, &v1::Jobs::Stub::Submit, request).status();
  };
  EXPECT_THAT(submit([](auto& spec) { spec.set_queue("nobody"); }),
              StatusIs(Code::kNotFound, "queue: there is no queue nobody"));
  EXPECT_THAT(submit([](auto& spec) { spec.set_queue("closed"); }),
              StatusIs(Code::kFailedPrecondition,
                       "queue: the job needs 1 GPU; queue closed may never hold more than 0"));
  EXPECT_THAT(submit([](auto& spec) {
                spec.set_queue("small");
                spec.set_gpus(4);
              }),
              StatusIs(Code::kFailedPrecondition,
                       "queue: the job needs 4 GPUs; queue small may never hold more than 2"));
  EXPECT_THAT(submit([](auto& spec) { spec.set_gpus(0); }),
              StatusIs(Code::kInvalidArgument, "gpus: expected"));
  EXPECT_THAT(submit([](auto& spec) { spec.set_priority(-1); }),
              StatusIs(Code::kPermissionDenied, "priority: expected 0 to 100, found -1"));

  v1::SubmitAllRequest circle;
  for (const auto& [name, after] : {std::pair("a", "b"), std::pair("b", "a")}) {
    v1::SubmitMember& member = *circle.add_members();
    member.set_name(name);
    *member.mutable_spec() = Request().spec();
    member.mutable_spec()->add_after(after);
  }
  EXPECT_THAT(
      CallOnce<v1::SubmitAllResponse>(*jobs, &v1::Jobs::Stub::SubmitAll, circle).status(),
      StatusIs(Code::kInvalidArgument, "after: jobs wait for each other: a after b after a"));

  v1::CreateScheduleRequest never;
  never.mutable_schedule()->set_name("never");
  never.mutable_schedule()->set_cron("0 0 30 2 *");
  *never.mutable_schedule()->mutable_spec() = Request().spec();
  EXPECT_THAT(CallOnce<v1::Schedule>(*schedules, &v1::Schedules::Stub::Create, never).status(),
              StatusIs(Code::kInvalidArgument, "cron: expected"));
  LL_ASSERT_OK_AND_ASSIGN(const v1::ListResponse left,
                          CallOnce<v1::ListResponse>(*v1::Jobs::NewStub(Secure("", "secret")),
                                                     &v1::Jobs::Stub::List, v1::ListRequest()));
  EXPECT_EQ(left.jobs_size(), 0);
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
