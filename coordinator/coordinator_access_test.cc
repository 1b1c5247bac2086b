// Who gets in: every method, every kind of stranger; certificates that change; agents that lie.
#include <tuple>

#include <sys/stat.h>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "coordinator/api/audit.h"
#include "coordinator/api/auth.h"
#include "coordinator/api/join.h"
#include "coordinator/secure_case.h"
#include "proto/schedules.pb.h"

namespace ll {
namespace {

struct Method {
  std::string path;
  Scope scope;
};

std::vector<Method> AllMethods() {
  std::vector<Method> out;
  for (const auto* file :
       {v1::GetRequest::descriptor()->file(), v1::AgentMessage::descriptor()->file(),
        v1::VersionRequest::descriptor()->file(), v1::Schedule::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        const std::string path = absl::StrCat("/", file->service(s)->full_name(), "/",
                                              file->service(s)->method(m)->name());
        out.push_back({path, *RequiredScope(path)});
      }
    }
  }
  return out;
}

using AccessTest = SecureTest;

TEST_F(AccessTest, EveryMethodRefusesEveryStranger) {
  struct Stranger {
    const char *who, *certificate, *token;
    grpc::StatusCode user_methods, session, join;
  };
  constexpr auto kNot = grpc::StatusCode::UNAUTHENTICATED;
  constexpr auto kMayNot = grpc::StatusCode::PERMISSION_DENIED;
  constexpr auto kNoDesk = grpc::StatusCode::FAILED_PRECONDITION;
  const Stranger strangers[] = {
      {"nobody", "", "", kNot, kNot, kNoDesk},
      {"an unknown token", "", "guess", kNot, kNot, kNoDesk},
      {"an expired token", "", "old", kNot, kNot, kNoDesk},
      {"a token of no scope", "", "nothing", kMayNot, kNot, kNoDesk},
      {"a worker's token", "", "workers", kMayNot, kNot, kNoDesk},
      {"a worker's certificate", "w1", "", kMayNot, grpc::StatusCode::OK, kNoDesk},
      {"a worker's certificate and a token", "w1", "secret", kMayNot, grpc::StatusCode::OK,
       kNoDesk},
      {"a user's certificate", "bob", "", kNot, kMayNot, kNoDesk},
      {"a user's certificate and another's token", "bob", "secret", kMayNot, kMayNot, kNoDesk},
  };
  int calls = 0;
  for (const Stranger& stranger : strangers) {
    const auto channel = Secure(stranger.certificate, stranger.token);
    for (const Method& method : AllMethods()) {
      const grpc::StatusCode want = method.scope == Scope::kWorker ? stranger.session
                                    : method.scope == Scope::kJoin ? stranger.join
                                                                   : stranger.user_methods;
      if (want == grpc::StatusCode::OK ||
          (method.scope == Scope::kJoin && &stranger != &strangers[0]))
        continue;
      bool answered = true;
      const grpc::Status status = CallRaw(channel, method.path, Empty(), &answered);
      EXPECT_EQ(status.error_code(), want)
          << stranger.who << " " << method.path << ": " << status.error_message();
      EXPECT_FALSE(answered) << stranger.who << " " << method.path;
      ++calls;
    }
    // The library's own and what is not there at all.
    for (const char* path : {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                             "/ll.v1.Jobs/NotThere", "/other.Service/Call"}) {
      bool answered = true;
      EXPECT_FALSE(CallRaw(channel, path, Empty(), &answered).ok()) << stranger.who << " " << path;
      EXPECT_FALSE(answered) << stranger.who << " " << path;
    }
  }
  EXPECT_EQ(calls, 9 * 28 + 1 + 7);
  // None of them changed anything, and the log has them.
  LL_ASSERT_OK_AND_ASSIGN(
      const v1::ListResponse left,
      CallOnce<v1::ListResponse>(*JobsOf("secret"), &v1::Jobs::Stub::List, v1::ListRequest()));
  EXPECT_EQ(left.jobs_size(), 0);
  LL_ASSERT_OK_AND_ASSIGN(const std::string log,
                          ReadFile(under_test_.options.data_dir + "/audit.jsonl"));
  EXPECT_THAT(log, ::testing::HasSubstr("\"result\":\"UNAUTHENTICATED\""));
  EXPECT_THAT(log, ::testing::HasSubstr("\"result\":\"PERMISSION_DENIED\""));
  for (const char* secret : {"guess", "\"secret\"", "bobs"})
    EXPECT_EQ(log.find(secret), std::string::npos) << secret;
}

TEST_F(AccessTest, EachScopeOpensItsOwnMethodsAlone) {
  // bob may submit, rita read, submit and cancel; neither is an administrator.
  const auto bob = Secure("", "bobs"), rita = Secure("", "reds");
  for (const Method& method : AllMethods()) {
    if (method.scope == Scope::kWorker || method.scope == Scope::kJoin) continue;
    const grpc::Status of_bob = CallRaw(bob, method.path, Empty());
    const bool by_bob = of_bob.error_code() != grpc::StatusCode::PERMISSION_DENIED;
    EXPECT_TRUE(by_bob || absl::StrContains(of_bob.error_message(), "found submit")) << method.path;
    const bool by_rita =
        CallRaw(rita, method.path, Empty()).error_code() != grpc::StatusCode::PERMISSION_DENIED;
    EXPECT_EQ(by_bob, method.scope == Scope::kSubmit) << method.path;
    EXPECT_EQ(by_rita, method.scope != Scope::kAdmin) << method.path;
  }
}

TEST_F(AccessTest, AUsersCertificateGoesWithThatUsersToken) {
  LL_EXPECT_OK(CallOnce<v1::ListResponse>(*v1::Jobs::NewStub(Secure("bob", "bob-reads")),
                                          &v1::Jobs::Stub::List, v1::ListRequest()));
}

TEST_F(AccessTest, NamesThatAreNotOursAreNobodys) {
  // A server's certificate of the same authority, also for a host that is called like a worker.
  MakePair("host", {.hosts = {"w1"}});
  ScriptedAgent agent(Secure("host", ""), "w1", "i1");
  agent.SayHello();
  EXPECT_EQ(agent.End().code(), absl::StatusCode::kUnavailable);  // none for clients: no handshake
}

TEST_F(AccessTest, ACertificateThatHasEndedOpensNothing) {
  MakePair("late", {.worker = "w1"}, absl::Now() - absl::Hours(30));  // good for 24 hours
  ScriptedAgent agent(Secure("late", ""), "w1", "i1");
  agent.SayHello();
  EXPECT_EQ(agent.End().code(), absl::StatusCode::kUnavailable);
}

TEST_F(AccessTest, AuthoritiesAndCertificatesChangeUnderAStream) {
  ScriptedAgent agent(Secure("w1", ""), "w1", "i1");
  agent.AddSlots(1);
  agent.SayHello();
  agent.TakeWelcome();
  const std::string before = File("before.crt");
  LL_ASSERT_OK(WriteFileAtomic(before, authority_.certificate_pem));
  MakePair("w1-before", {.worker = "w1"});
  MakeCertificates("");  // another authority: everything anew, the key before its certificate
  const auto list = [&](const std::string& ca) {
    auto jobs = v1::Jobs::NewStub(Secure("", "secret", ca));
    return CallOnce<v1::ListResponse>(*jobs, &v1::Jobs::Stub::List, v1::ListRequest()).status();
  };
  const absl::Time until = absl::Now() + kTestPatience;
  while (!list("ca.crt").ok() && absl::Now() < until) absl::SleepFor(absl::Milliseconds(100));
  LL_EXPECT_OK(list("ca.crt"));
  EXPECT_EQ(list("before.crt").code(), absl::StatusCode::kUnavailable);
  // A worker's certificate of the former authority opens nothing any more, a new one does.
  ScriptedAgent former(Secure("w1-before", ""), "w2", "i1");
  former.SayHello();
  EXPECT_FALSE(former.End().ok());
  ScriptedAgent fresh(Secure("w2", ""), "w2", "i1");
  fresh.SayHello();
  fresh.TakeWelcome();
  // The stream that stood goes on.
  v1::AgentMessage beat;
  beat.mutable_heartbeat()->set_sequence(7);
  agent.Send(beat);
  agent.Take([](const auto& m) { return m.heartbeat_ack().sequence() == 7; }, "heartbeat ack");
}

TEST_F(AccessTest, TokensComeAndGoWithoutARestart) {
  auto jobs = JobsOf("new-one");
  const auto code = [&] {
    return CallOnce<v1::ListResponse>(*jobs, &v1::Jobs::Stub::List, v1::ListRequest())
        .status()
        .code();
  };
  EXPECT_EQ(code(), absl::StatusCode::kUnauthenticated);
  const std::string id = Sha256Hex("new-one");
  LL_ASSERT_OK(AddToken(File("tokens"), {.sha256 = id, .user = "nora", .scopes = {"read"}}));
  const absl::Time until = absl::Now() + kTestPatience;
  while (code() != absl::StatusCode::kOk && absl::Now() < until)
    absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(code(), absl::StatusCode::kOk);
  LL_ASSERT_OK(RemoveToken(File("tokens"), id).status());
  while (code() == absl::StatusCode::kOk && absl::Now() < until)
    absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(code(), absl::StatusCode::kUnauthenticated);
}

TEST_F(AccessTest, AKeyThatEverybodyMayReadStopsTheStart) {
  under_test_.Stop();
  ASSERT_EQ(chmod(File("server.key").c_str(), 0644), 0);
  EXPECT_THAT(under_test_.Start(), StatusIs(absl::StatusCode::kFailedPrecondition, "tls-key"));
}

// ---- joining

class JoiningTest : public SecureTest {
 protected:
  void Configure() override {
    LL_ASSERT_OK(WriteFileAtomic(File("ca.key"), authority_.key_pem, 0600));
    under_test_.options.pki_dir = under_test_.dir();
  }
};

TEST_F(JoiningTest, AWorkerGetsItsCertificateByAToken) {
  LL_ASSERT_OK_AND_ASSIGN(
      const std::string token,
      MakeJoinToken(under_test_.dir(), "w7", 1, absl::Now() + absl::Hours(1), SystemRandom()));
  LL_ASSERT_OK_AND_ASSIGN(const KeyPair mine, MakeCsr("w7"));
  v1::JoinRequest request;
  request.set_worker("w7");
  request.set_csr_pem(mine.certificate_pem);
  auto workers = v1::Workers::NewStub(Secure("", ""));
  request.set_token("guess");
  EXPECT_THAT(CallOnce<v1::JoinResponse>(*workers, &v1::Workers::Stub::Join, request),
              StatusIs(absl::StatusCode::kUnauthenticated, "join token"));
  request.set_token(token);
  LL_ASSERT_OK_AND_ASSIGN(const v1::JoinResponse got,
                          CallOnce<v1::JoinResponse>(*workers, &v1::Workers::Stub::Join, request));
  LL_ASSERT_OK(WriteFileAtomic(File("w7.crt"), got.certificate_pem()));
  LL_ASSERT_OK(WriteFileAtomic(File("w7.key"), mine.key_pem, 0600));
  ScriptedAgent agent(Secure("w7", ""), "w7", "i1");
  agent.SayHello();
  agent.TakeWelcome();
  EXPECT_THAT(CallOnce<v1::JoinResponse>(*workers, &v1::Workers::Stub::Join, request),
              StatusIs(absl::StatusCode::kUnauthenticated, "join token"));
  // Guessing is slow: a handful a second for all the world.
  int limited = 0;
  for (int i = 0; i < 20; ++i) {
    limited +=
        CallOnce<v1::JoinResponse>(*workers, &v1::Workers::Stub::Join, request).status().code() ==
        absl::StatusCode::kResourceExhausted;
  }
  EXPECT_GT(limited, 5);
}

// ---- agents that lie

class LyingAgentTest : public CoordinatorTest {
 protected:
  void SetUp() override {
    CoordinatorTest::SetUp();
    under_test_.options.shared_job_store = true;
    Start();
    for (const char* name : {"w1", "w2"}) {
      agents_.push_back(Agent(name, 1));
      agents_.back()->hello().set_host(name);
      agents_.back()->SayHello();
      agents_.back()->TakeWelcome();
    }
    auto submitted = Submit(Request(2));
    LL_ASSERT_OK(submitted);
    id_ = submitted->job().job_id();
    for (auto& agent : agents_) gangs_.push_back(agent->TakeStart());
    ASSERT_EQ(gangs_[0].ranks_size(), 1);
    ASSERT_EQ(gangs_[1].ranks_size(), 1);
    for (size_t i = 0; i < 2; ++i) agents_[i]->ReportTraining(gangs_[i]);
    AwaitState(id_, v1::RUNNING);
  }
  int RankOf(size_t agent) { return gangs_[agent].ranks(0).rank(); }
  void Beat(size_t agent) {  // everything before it has been decided on when it is answered
    v1::AgentMessage beat;
    beat.mutable_heartbeat()->set_sequence(++beats_);
    agents_[agent]->Send(beat);
    const int64_t sent = beats_;
    agents_[agent]->Take([sent](const auto& m) { return m.heartbeat_ack().sequence() == sent; },
                         "heartbeat ack");
  }

  std::string id_;
  std::vector<std::unique_ptr<ScriptedAgent>> agents_;
  std::vector<v1::StartGang> gangs_;
  int64_t beats_ = 0;
};

TEST_F(LyingAgentTest, NobodyReportsForARankThatIsAnothers) {
  for (const bool well : {false, true}) {
    v1::AgentMessage lie;
    v1::ExitReport* exit = agents_[1]->NewReport(lie, gangs_[1], RankOf(0))->mutable_exit();
    exit->set_exit_code(well ? 0 : 20);
    agents_[1]->Send(lie);
  }
  v1::AgentMessage checkpoint;
  agents_[1]->NewReport(checkpoint, gangs_[1], RankOf(0))->mutable_checkpoint()->set_path("/evil");
  agents_[1]->Send(checkpoint);
  Beat(1);
  LL_ASSERT_OK_AND_ASSIGN(const v1::Job job, Get(id_, true));
  EXPECT_EQ(job.state(), v1::RUNNING) << job.reason();
  EXPECT_FALSE(job.has_newest_checkpoint());
  // Reports of another job, of a rank that is not there and of attempts that never were change
  // nothing either.
  for (const auto& [job_id, epoch, rank] :
       std::vector<std::tuple<std::string, int64_t, int>>{{"job-000000000000", 1, 0},
                                                          {id_, 0, RankOf(1)},
                                                          {id_, 99, RankOf(1)},
                                                          {id_, 1, 4095},
                                                          {id_, 1, -1}}) {
    v1::AgentMessage lie;
    v1::Report* report = agents_[1]->NewReport(lie, gangs_[1], rank);
    report->set_job_id(job_id);
    report->set_epoch(epoch);
    report->mutable_exit()->set_exit_code(20);
    agents_[1]->Send(lie);
  }
  Beat(1);
  AwaitState(id_, v1::RUNNING);
}

TEST_F(LyingAgentTest, NobodyWritesTheLogOfARankThatIsAnothers) {
  const auto say = [&](size_t agent, int rank, const std::string& text) {
    v1::AgentMessage message;
    v1::Telemetry* telemetry = message.mutable_telemetry();
    telemetry->set_job_id(id_);
    telemetry->set_epoch(1);
    telemetry->set_rank(rank);
    telemetry->set_stream(v1::Telemetry::LOG);
    telemetry->set_data(text);
    agents_[agent]->Send(message);
  };
  say(1, RankOf(0), "forged");
  Beat(1);
  say(0, RankOf(0), "genuine");
  agents_[0]->TakeTelemetryAck();
  grpc::ClientContext context;
  SetDeadline(context);
  v1::LogsRequest request;
  request.set_job_id(id_);
  request.set_rank(RankOf(0));
  auto logs = jobs_->Logs(&context, request);
  v1::LogsResponse piece;
  std::string text;
  while (logs->Read(&piece)) text += piece.data();
  EXPECT_EQ(text, "genuine");
}

TEST_F(LyingAgentTest, MessagesOutOfOrderEndTheStreamAndNothingElse) {
  std::vector<v1::AgentMessage> firsts(4);
  firsts[0].mutable_heartbeat()->set_sequence(1);
  firsts[1].mutable_report()->set_job_id(id_);
  firsts[2].mutable_telemetry()->set_job_id(id_);
  firsts[3].mutable_checked()->set_id(1);
  for (const v1::AgentMessage& first : firsts) {
    ScriptedAgent agent(under_test_.Channel(), "w3", "i1");
    agent.Send(first);
    EXPECT_THAT(agent.End(), StatusIs(absl::StatusCode::kInvalidArgument, "hello"));
  }
  ScriptedAgent twice(under_test_.Channel(), "w3", "i1");
  twice.SayHello();
  twice.SayHello();
  EXPECT_THAT(twice.End(), StatusIs(absl::StatusCode::kInvalidArgument, "second hello"));
  ScriptedAgent thief(under_test_.Channel(), "w1", "another");  // a live worker's name
  thief.SayHello();
  EXPECT_EQ(thief.End().code(), absl::StatusCode::kAlreadyExists);
  Beat(0);
  AwaitState(id_, v1::RUNNING);
}

// What one tells for people to read makes no answer too long to be read.
TEST_F(LyingAgentTest, NoOneTellsOfMoreSlotsThanThereAre) {
  v1::AgentMessage beat;
  beat.mutable_heartbeat()->set_sequence(7);
  for (int i = 0; i < 300'000; ++i) beat.mutable_heartbeat()->add_loads()->set_slot(i);
  agents_[1]->Send(beat);
  agents_[1]->Take([](const auto& m) { return m.heartbeat_ack().sequence() == 7; }, "the answer");
  LL_ASSERT_OK_AND_ASSIGN(const v1::ListWorkersResponse workers,
                          CallOnce<v1::ListWorkersResponse>(*admin_, &v1::Admin::Stub::ListWorkers,
                                                            v1::ListWorkersRequest()));
  for (const v1::Worker& worker : workers.workers())
    EXPECT_LE(worker.loads_size(), 1024) << worker.worker();
}

}  // namespace
}  // namespace ll
