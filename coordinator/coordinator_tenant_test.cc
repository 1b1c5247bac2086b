// Tenants do not see each other; their limits hold; tokens of an identity provider; what requests
// may hold.
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "coordinator/api/audit.h"
#include "coordinator/secure_case.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using Code = absl::StatusCode;

class TenantTest : public SecureTest {
 protected:
  void Configure() override {
    LL_ASSERT_OK(WriteFileAtomic(File("tenants.yaml"), R"(
tenants:
  red: {unfinished_jobs: 3, schedules: 1, schedule_interval: 600}
)"));
    under_test_.options.tenants = File("tenants.yaml");
  }
  template <typename Response, typename Stub, typename Request>
  absl::Status Try(Stub& stub,
                   grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                   const Request& request) {
    return CallOnce<Response>(stub, method, request).status();
  }
  template <typename Request>
  static Request About(const std::string& id) {
    Request request;
    request.set_job_id(id);
    return request;
  }
  template <typename Request>
  static Request Named(const std::string& name) {
    Request request;
    request.set_name(name);
    return request;
  }
  absl::Status ReadStream(const std::string& token, const std::string& id, bool logs) {
    auto jobs = JobsOf(token);
    grpc::ClientContext context;
    SetDeadline(context);
    if (logs) {
      auto stream = jobs->Logs(&context, About<v1::LogsRequest>(id));
      v1::LogsResponse piece;
      while (stream->Read(&piece)) {
      }
      return FromGrpcStatus(stream->Finish());
    }
    auto stream = jobs->Watch(&context, About<v1::WatchRequest>(id));
    v1::WatchResponse first;
    if (stream->Read(&first)) context.TryCancel();
    while (stream->Read(&first)) {
    }
    return FromGrpcStatus(stream->Finish());
  }
  v1::CreateScheduleRequest Nightly(const std::string& name, const std::string& cron = "@daily") {
    v1::CreateScheduleRequest request;
    request.mutable_schedule()->set_name(name);
    request.mutable_schedule()->set_cron(cron);
    *request.mutable_schedule()->mutable_spec() = Request().spec();
    return request;
  }
};

// Each method with a job's id, by another tenant's user: as if there were no such job.
TEST_F(TenantTest, AnothersJobsAreNotThere) {
  const std::string id = SubmitAs("reds");
  const auto all = [&](const std::string& token) {
    auto jobs = JobsOf(token);
    using Stub = v1::Jobs::Stub;
    v1::SubmitRequest eval = Request(), after = Request(), after_any = Request();
    eval.mutable_spec()->set_kind("eval");
    eval.mutable_spec()->set_job(id);
    after.mutable_spec()->add_after(id);
    after_any.mutable_spec()->add_after_any(id);
    std::vector<std::pair<const char*, absl::Status>> out = {
        {"Get", Try<v1::Job>(*jobs, &Stub::Get, About<v1::GetRequest>(id))},
        {"Why", Try<v1::WhyResponse>(*jobs, &Stub::Why, About<v1::WhyRequest>(id))},
        {"Checkpoints", Try<v1::CheckpointsResponse>(*jobs, &Stub::Checkpoints,
                                                     About<v1::CheckpointsRequest>(id))},
        {"Watch", ReadStream(token, id, false)},
        {"Logs", ReadStream(token, id, true)},
        {"Say", Try<v1::SayResponse>(*jobs, &Stub::Say, About<v1::SayRequest>(id))},
        {"Pause", Try<v1::Job>(*jobs, &Stub::Pause, About<v1::PauseRequest>(id))},
        {"Resume", Try<v1::Job>(*jobs, &Stub::Resume, About<v1::ResumeRequest>(id))},
        {"Submit after", Try<v1::SubmitResponse>(*jobs, &Stub::Submit, after)},
        {"Submit after_any", Try<v1::SubmitResponse>(*jobs, &Stub::Submit, after_any)},
        {"Submit job", Try<v1::SubmitResponse>(*jobs, &Stub::Submit, eval)},
        {"Cancel", Try<v1::Job>(*jobs, &Stub::Cancel, About<v1::CancelRequest>(id))}};
    return out;
  };
  for (const auto& [what, status] : all("blues"))
    EXPECT_EQ(status.code(), Code::kNotFound) << what << ": " << status;
  // Someone without a tenant sees as little, the tenant's other users and administrators see it.
  for (const auto& [what, status] : all("bob-reads"))
    EXPECT_EQ(status.code(), Code::kNotFound) << what << ": " << status;
  for (const std::string token : {"reds-too", "secret"}) {
    for (const auto& [what, status] : all(token))
      EXPECT_NE(status.code(), Code::kNotFound) << token << " " << what << ": " << status;
  }
  // A wrong id gets the same words as another's.
  auto blue = JobsOf("blues");
  const std::string none = "job-0123456789ab";
  const absl::Status of_another =
      Try<v1::Job>(*blue, &v1::Jobs::Stub::Get, About<v1::GetRequest>(id));
  const absl::Status of_nobody =
      Try<v1::Job>(*blue, &v1::Jobs::Stub::Get, About<v1::GetRequest>(none));
  EXPECT_EQ(absl::StrReplaceAll(of_another.message(), {{id, none}}), of_nobody.message());
}

TEST_F(TenantTest, ListsAndReasonsShowOnesOwn) {
  ScriptedAgent agent(Secure("w1", ""), "w1", "i1");
  agent.AddSlots(1);
  agent.SayHello();
  agent.TakeWelcome();
  const std::string red = SubmitAs("reds", "same-id"), blue = SubmitAs("blues", "same-id");
  EXPECT_NE(red, blue);  // request ids are a user's own
  EXPECT_EQ(SubmitAs("reds", "same-id"), red);
  for (const auto& [token, want] : std::vector<std::pair<std::string, std::string>>{
           {"reds-too", red}, {"blues", blue}, {"bob-reads", ""}}) {
    LL_ASSERT_OK_AND_ASSIGN(
        const v1::ListResponse list,
        CallOnce<v1::ListResponse>(*JobsOf(token), &v1::Jobs::Stub::List, v1::ListRequest()));
    ASSERT_EQ(list.jobs_size(), want.empty() ? 0 : 1) << token;
    if (!want.empty()) {
      EXPECT_EQ(list.jobs(0).job_id(), want);
    }
  }
  LL_ASSERT_OK_AND_ASSIGN(
      const v1::ListResponse everything,
      CallOnce<v1::ListResponse>(*JobsOf("secret"), &v1::Jobs::Stub::List, v1::ListRequest()));
  EXPECT_EQ(everything.jobs_size(), 2);

  // One slot: red's job runs, blue's waits behind it.
  const v1::StartGang gang = agent.TakeStart();
  EXPECT_EQ(gang.job_id(), red);
  agent.ReportTraining(gang);
  const std::string second = SubmitAs("blues");
  for (const std::string& id : {blue, second}) {
    LL_ASSERT_OK_AND_ASSIGN(const v1::WhyResponse why,
                            CallOnce<v1::WhyResponse>(*JobsOf("blues"), &v1::Jobs::Stub::Why,
                                                      About<v1::WhyRequest>(id)));
    EXPECT_EQ(why.DebugString().find(red), std::string::npos) << why.DebugString();
  }
  const auto worker_for = [&](const std::string& token) {
    auto workers =
        CallOnce<v1::ListWorkersResponse>(*v1::Admin::NewStub(Secure("", token)),
                                          &v1::Admin::Stub::ListWorkers, v1::ListWorkersRequest());
    EXPECT_TRUE(workers.ok()) << workers.status();
    return workers->workers(0);
  };
  EXPECT_EQ(worker_for("reds").uses(0).job_id(), red);
  EXPECT_EQ(worker_for("secret").uses(0).job_id(), red);
  EXPECT_EQ(worker_for("blues").uses(0).job_id(), "");

  // Nor does the reason of a cordon tell which of another's jobs it was for.
  v1::CordonWorkerRequest cordon;
  cordon.set_worker("w1");
  cordon.set_action(v1::CordonWorkerRequest::CORDON);
  cordon.set_reason(absl::StrCat("slow (", red, ", ", blue, "); job-card 7"));
  LL_ASSERT_OK(CallOnce<v1::Worker>(*v1::Admin::NewStub(Secure("", "secret")),
                                    &v1::Admin::Stub::CordonWorker, cordon)
                   .status());
  const auto reason = [&](const std::string& a, const std::string& b) {
    return testing::EndsWith(absl::StrCat(": slow (", a, ", ", b, "); job-card 7"));
  };
  EXPECT_THAT(worker_for("secret").cordon_reason(), reason(red, blue));
  EXPECT_THAT(worker_for("reds").cordon_reason(), reason(red, "another job"));
  EXPECT_THAT(worker_for("blues").cordon_reason(), reason("another job", blue));
}

TEST_F(TenantTest, SchedulesAreATenantsOwn) {
  auto red = v1::Schedules::NewStub(Secure("", "reds"));
  auto blue = v1::Schedules::NewStub(Secure("", "blues"));
  auto admin = v1::Schedules::NewStub(Secure("", "secret"));
  using Stub = v1::Schedules::Stub;
  LL_ASSERT_OK_AND_ASSIGN(v1::Schedule made,
                          CallOnce<v1::Schedule>(*red, &Stub::Create, Nightly("nightly")));
  EXPECT_EQ(made.name(), "nightly");
  const auto all = [&](Stub& stub, const std::string& name) {
    v1::RunScheduleRequest run = Named<v1::RunScheduleRequest>(name);
    run.set_request_id("r1");
    return std::vector<absl::Status>{
        Try<v1::Schedule>(stub, &Stub::Get, Named<v1::GetScheduleRequest>(name)),
        Try<v1::Schedule>(stub, &Stub::Pause, Named<v1::PauseScheduleRequest>(name)),
        Try<v1::Schedule>(stub, &Stub::Resume, Named<v1::ResumeScheduleRequest>(name)),
        Try<v1::Job>(stub, &Stub::Run, run),
        Try<v1::Schedule>(stub, &Stub::Delete, Named<v1::DeleteScheduleRequest>(name))};
  };
  for (const std::string name : {"nightly", "red/nightly", "/red/nightly", "../red/nightly"}) {
    for (const absl::Status& status : all(*blue, name))
      EXPECT_EQ(status.code(), Code::kNotFound) << name << ": " << status;
  }
  // Nor does who has no tenant reach a tenant's by its whole name.
  auto none = v1::Schedules::NewStub(Secure("", "bob-reads"));
  for (const std::string name : {"nightly", "red/nightly", "/red/nightly"}) {
    for (const absl::Status& status : all(*none, name))
      EXPECT_EQ(status.code(), Code::kNotFound) << name << ": " << status;
  }
  LL_ASSERT_OK_AND_ASSIGN(
      v1::ListSchedulesResponse list,
      CallOnce<v1::ListSchedulesResponse>(*blue, &Stub::List, v1::ListSchedulesRequest()));
  EXPECT_EQ(list.schedules_size(), 0);
  // The same name is blue's to give; an administrator tells the two apart.
  LL_EXPECT_OK(Try<v1::Schedule>(*blue, &Stub::Create, Nightly("nightly", "0 3 * * *")));
  LL_ASSERT_OK_AND_ASSIGN(
      list, CallOnce<v1::ListSchedulesResponse>(*admin, &Stub::List, v1::ListSchedulesRequest()));
  ASSERT_EQ(list.schedules_size(), 2);
  EXPECT_EQ(list.schedules(0).name(), "blue/nightly");
  // Its jobs are its tenant's, whoever runs it.
  v1::RunScheduleRequest run = Named<v1::RunScheduleRequest>("red/nightly");
  run.set_request_id("by-ann");
  LL_ASSERT_OK_AND_ASSIGN(const v1::Job job, CallOnce<v1::Job>(*admin, &Stub::Run, run));
  EXPECT_EQ(job.tenant(), "red");
  EXPECT_EQ(
      Try<v1::Job>(*JobsOf("blues"), &v1::Jobs::Stub::Get, About<v1::GetRequest>(job.job_id()))
          .code(),
      Code::kNotFound);
  LL_EXPECT_OK(
      Try<v1::Job>(*JobsOf("reds"), &v1::Jobs::Stub::Get, About<v1::GetRequest>(job.job_id())));
  // A restart keeps whose they are.
  under_test_.Stop();
  LL_ASSERT_OK(under_test_.Start());
  auto again = v1::Schedules::NewStub(Secure("", "reds"));
  LL_EXPECT_OK(Try<v1::Schedule>(*again, &Stub::Get, Named<v1::GetScheduleRequest>("nightly")));
  EXPECT_EQ(
      Try<v1::Job>(*JobsOf("blues"), &v1::Jobs::Stub::Get, About<v1::GetRequest>(job.job_id()))
          .code(),
      Code::kNotFound);
}

TEST_F(TenantTest, RegisteredNamesMayBeATenantsOwn) {
  auto admin = v1::Admin::NewStub(Secure("", "secret"));
  using Stub = v1::Admin::Stub;
  v1::AddModelRequest add;
  add.set_name("house");
  add.set_path(model());
  add.set_tenant("red");
  LL_ASSERT_OK_AND_ASSIGN(const v1::Model added, CallOnce<v1::Model>(*admin, &Stub::AddModel, add));
  EXPECT_EQ(added.name(), "house");
  EXPECT_EQ(added.tenant(), "red");
  v1::AddDataRequest data_of_red;
  data_of_red.set_name("texts");
  data_of_red.set_path(data());
  data_of_red.set_tenant("red");
  LL_ASSERT_OK(Try<v1::Data>(*admin, &Stub::AddData, data_of_red));
  data_of_red.set_is_default(true);
  EXPECT_THAT(Try<v1::Data>(*admin, &Stub::AddData, data_of_red),
              StatusIs(Code::kInvalidArgument, "is_default"));
  add.set_tenant("red/blue");
  EXPECT_THAT(Try<v1::Model>(*admin, &Stub::AddModel, add),
              StatusIs(Code::kInvalidArgument, "tenant"));

  const auto submit = [&](const std::string& token, const std::string& model_name) {
    v1::SubmitRequest request = Request();
    request.mutable_spec()->set_model(model_name);
    request.mutable_spec()->set_data("texts");
    return Try<v1::SubmitResponse>(*JobsOf(token), &v1::Jobs::Stub::Submit, request);
  };
  LL_EXPECT_OK(submit("reds", "house"));
  for (const std::string name : {"house", "red/house"}) {
    const absl::Status refused = submit("blues", name);
    EXPECT_EQ(refused.code(), Code::kInvalidArgument) << refused;
    EXPECT_EQ(ErrorField(refused), "model");
  }
  const auto shown = [&](const std::string& token) {
    int own = 0;
    auto stub = v1::Admin::NewStub(Secure("", token));
    auto models =
        CallOnce<v1::ListModelsResponse>(*stub, &Stub::ListModels, v1::ListModelsRequest());
    for (const v1::Model& m : models->models()) own += m.name() == "house";
    auto files = CallOnce<v1::ListDataResponse>(*stub, &Stub::ListData, v1::ListDataRequest());
    return std::make_pair(own, files->data_size());
  };
  EXPECT_EQ(shown("reds"), std::make_pair(1, 1));
  EXPECT_EQ(shown("blues"), std::make_pair(0, 0));
  EXPECT_EQ(shown("secret"), std::make_pair(1, 1));
}

TEST_F(TenantTest, LimitsHoldAndAreReadAgain) {
  for (int i = 0; i < 3; ++i)
    SubmitAs(i % 2 == 0 ? "reds" : "reds-too");  // of the tenant, not the user
  auto red = JobsOf("reds");
  EXPECT_THAT(
      Try<v1::SubmitResponse>(*red, &v1::Jobs::Stub::Submit, Request()),
      StatusIs(Code::kResourceExhausted, "unfinished_jobs: your tenant has 3 unfinished jobs"));
  SubmitAs("blues");
  // Churn gives room, and no more than was taken.
  LL_ASSERT_OK_AND_ASSIGN(
      const v1::ListResponse list,
      CallOnce<v1::ListResponse>(*red, &v1::Jobs::Stub::List, v1::ListRequest()));
  LL_ASSERT_OK(
      Try<v1::Job>(*red, &v1::Jobs::Stub::Cancel, About<v1::CancelRequest>(list.jobs(0).job_id())));
  SubmitAs("reds");
  EXPECT_EQ(Try<v1::SubmitResponse>(*red, &v1::Jobs::Stub::Submit, Request()).code(),
            Code::kResourceExhausted);
  v1::SubmitAllRequest many;
  for (int i = 0; i < 5; ++i) {
    v1::SubmitMember& member = *many.add_members();
    member.set_name(absl::StrCat("m", i));
    *member.mutable_spec() = Request().spec();
  }
  EXPECT_EQ(Try<v1::SubmitAllResponse>(*red, &v1::Jobs::Stub::SubmitAll, many).code(),
            Code::kResourceExhausted);

  auto schedules = v1::Schedules::NewStub(Secure("", "reds"));
  for (const char* cron : {"* * * * *", "*/5 * * * *", "0,5 3 * * *"}) {
    EXPECT_THAT(Try<v1::Schedule>(*schedules, &v1::Schedules::Stub::Create, Nightly("often", cron)),
                StatusIs(Code::kPermissionDenied, "cron"))
        << cron;
  }
  // The job limit is reached, so that a schedule would be refused for it: other limits first.
  LL_ASSERT_OK(WriteFileAtomic(File("tenants.yaml"), R"(
tenants:
  red: {schedules: 1, calls_per_second: 30, queues: [night]}
)"));
  v1::SetQueueRequest queue;
  queue.mutable_queue()->set_name("night");
  queue.mutable_queue()->set_weight(1);
  LL_ASSERT_OK(
      Try<v1::Queue>(*v1::Admin::NewStub(Secure("", "secret")), &v1::Admin::Stub::SetQueue, queue));
  const absl::Time until = absl::Now() + kTestPatience;
  absl::StatusOr<v1::SubmitResponse> submitted = absl::UnknownError("");
  while (!submitted.ok() && absl::Now() < until) {
    submitted = CallOnce<v1::SubmitResponse>(*red, &v1::Jobs::Stub::Submit, Request());
    absl::SleepFor(absl::Milliseconds(50));
  }
  LL_ASSERT_OK(submitted);
  EXPECT_EQ(submitted->job().spec().queue(), "night");
  v1::SubmitRequest elsewhere = Request();
  elsewhere.mutable_spec()->set_queue("default");
  EXPECT_THAT(Try<v1::SubmitResponse>(*red, &v1::Jobs::Stub::Submit, elsewhere),
              StatusIs(Code::kPermissionDenied, "queue"));
  LL_EXPECT_OK(Try<v1::Schedule>(*schedules, &v1::Schedules::Stub::Create, Nightly("one")));
  EXPECT_THAT(Try<v1::Schedule>(*schedules, &v1::Schedules::Stub::Create, Nightly("two")),
              StatusIs(Code::kResourceExhausted, "schedules"));
  // All at once: one by one they might be slower than the limit.
  std::atomic<int> limited = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 100; ++i) {
    callers.emplace_back([&] {
      limited += Try<v1::ListResponse>(*red, &v1::Jobs::Stub::List, v1::ListRequest()).code() ==
                 Code::kResourceExhausted;
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_GT(limited, 10);
  LL_EXPECT_OK(Try<v1::ListResponse>(*JobsOf("blues"), &v1::Jobs::Stub::List, v1::ListRequest()));
}

// ---- an identity provider

class ProviderTest : public SecureTest {
 protected:
  void Configure() override {
    key_ = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
    BIO* bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PUBKEY(bio, key_);
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio, &data);
    LL_ASSERT_OK(WriteFileAtomic(File("idp.pem"), {data, static_cast<size_t>(size)}));
    BIO_free(bio);
    OidcOptions& oidc = under_test_.options.oidc;
    oidc.keys_file = File("idp.pem");
    oidc.issuer = "https://id.example";
    oidc.audience = "ll";
  }
  ~ProviderTest() override { EVP_PKEY_free(key_); }
  std::string Token(const nlohmann::json& more) {
    nlohmann::json claims = {{"iss", "https://id.example"},
                             {"aud", "ll"},
                             {"sub", "otto"},
                             {"exp", absl::ToUnixSeconds(absl::Now()) + 600}};
    claims.update(more);
    const std::string text = absl::StrCat(absl::WebSafeBase64Escape(R"({"alg":"EdDSA"})"), ".",
                                          absl::WebSafeBase64Escape(claims.dump()));
    unsigned char signature[64];
    size_t size = sizeof signature;
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    EVP_DigestSignInit(context, nullptr, nullptr, nullptr, key_);
    EVP_DigestSign(context, signature, &size, reinterpret_cast<const unsigned char*>(text.data()),
                   text.size());
    EVP_MD_CTX_free(context);
    return absl::StrCat(text, ".",
                        absl::WebSafeBase64Escape({reinterpret_cast<char*>(signature), size}));
  }
  absl::Status List(const std::string& token) {
    return CallOnce<v1::ListResponse>(*JobsOf(token), &v1::Jobs::Stub::List, v1::ListRequest())
        .status();
  }
  EVP_PKEY* key_ = nullptr;
};

TEST_F(ProviderTest, ItsTokensAreUsersOfTheirTenants) {
  LL_EXPECT_OK(List(Token({{"scope", "ll:read"}})));
  EXPECT_EQ(List(Token({{"scope", "openid"}})).code(), Code::kPermissionDenied);
  EXPECT_EQ(List(Token({{"scope", "read"}, {"aud", "others"}})).code(), Code::kUnauthenticated);
  EXPECT_EQ(List(Token({{"scope", "read"}, {"exp", 1}})).code(), Code::kUnauthenticated);
  LL_EXPECT_OK(List("bob-reads"));  // those of the file too
  const std::string id = SubmitAs(Token({{"scope", "submit"}, {"ll_tenant", "red"}}));
  v1::GetRequest request;
  request.set_job_id(id);
  LL_ASSERT_OK_AND_ASSIGN(const v1::Job job,
                          CallOnce<v1::Job>(*JobsOf("reds"), &v1::Jobs::Stub::Get, request));
  EXPECT_EQ(job.user(), "oidc:otto");
  EXPECT_EQ(job.tenant(), "red");
}

// ---- what requests hold

TEST_F(TenantTest, PathsThatLeadElsewhereAreRefusedByTheirKey) {
  auto jobs = JobsOf("secret");
  for (const char* key : {"model", "data", "adapter"}) {
    for (const std::string& path :
         {std::string("../../etc/passwd"), std::string("/models/../../etc/passwd"),
          std::string("/models/x\0/y", 12), std::string("/proc/self/root/etc"),
          std::string("/dev/zero"), std::string("/sys/kernel"), std::string("/a\nb"),
          "/" + std::string(5000, 'a')}) {
      v1::SubmitRequest request = Request();
      const auto* field = v1::JobSpec::descriptor()->FindFieldByName(key);
      request.mutable_spec()->GetReflection()->SetString(request.mutable_spec(), field, path);
      const absl::Status status = Try<v1::SubmitResponse>(*jobs, &v1::Jobs::Stub::Submit, request);
      EXPECT_EQ(status.code(), Code::kInvalidArgument)
          << key << " " << path.substr(0, 40) << status;
      EXPECT_EQ(ErrorField(status), key) << status;
    }
  }
  // "%2e%2e" is a name like another: nothing here decodes it.
  v1::SubmitRequest encoded = Request();
  encoded.mutable_spec()->set_data(under_test_.dir() + "/%2e%2e/data.bin");
  EXPECT_EQ(Try<v1::SubmitResponse>(*jobs, &v1::Jobs::Stub::Submit, encoded).code(),
            Code::kNotFound);
  // A pipe in place of a file is not waited for.
  const std::string fifo = File("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  v1::SubmitRequest piped = Request();
  piped.mutable_spec()->clear_model();
  piped.mutable_spec()->set_model_config(fifo);
  piped.mutable_spec()->set_method("full");
  EXPECT_EQ(Try<v1::SubmitResponse>(*jobs, &v1::Jobs::Stub::Submit, piped).code(),
            Code::kInvalidArgument);
}

TEST_F(TenantTest, TheAuditLogHasEachChangeAndNoSecret) {
  const std::string id = SubmitAs("reds", "r-17");
  LL_ASSERT_OK(
      Try<v1::Job>(*JobsOf("reds"), &v1::Jobs::Stub::Cancel, About<v1::CancelRequest>(id)));
  Try<v1::Job>(*JobsOf("blues"), &v1::Jobs::Stub::Cancel, About<v1::CancelRequest>(id))
      .IgnoreError();
  LL_ASSERT_OK(Try<v1::ListResponse>(*JobsOf("reds"), &v1::Jobs::Stub::List, v1::ListRequest()));
  const std::string path = under_test_.options.data_dir + "/audit.jsonl";
  LL_ASSERT_OK_AND_ASSIGN(const AuditSummary summary, VerifyAudit({path}));
  EXPECT_EQ(summary.lines, 3);  // a read is no change
  LL_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(path));
  std::vector<nlohmann::json> lines;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty()))
    lines.push_back(nlohmann::json::parse(line));
  EXPECT_EQ(lines[0]["method"], "/ll.v1.Jobs/Submit");
  EXPECT_EQ(lines[0]["user"], "rita");
  EXPECT_EQ(lines[0]["tenant"], "red");
  EXPECT_EQ(lines[0]["object"], id);
  EXPECT_EQ(lines[0]["request_id"], "r-17");
  EXPECT_EQ(lines[0]["result"], "OK");
  EXPECT_TRUE(absl::StartsWith(lines[0]["peer"].get<std::string>(), "ipv4:127.0.0.1"));
  EXPECT_EQ(lines[2]["result"], "NOT_FOUND");
  EXPECT_EQ(lines[2]["tenant"], "blue");
  EXPECT_EQ(text.find("reds"), std::string::npos);  // the token
}

// What a user may not submit it may not have a schedule submit at once either.
TEST_F(TenantTest, RunsByHandCountAgainstTheLimitOfJobs) {
  using Stub = v1::Schedules::Stub;
  auto red = v1::Schedules::NewStub(Secure("", "reds"));
  v1::CreateScheduleRequest create = Nightly("nightly");
  create.mutable_schedule()->set_overlap("queue");
  LL_ASSERT_OK(Try<v1::Schedule>(*red, &Stub::Create, create));
  for (int i = 0; i < 5; ++i) {
    v1::RunScheduleRequest run = Named<v1::RunScheduleRequest>("nightly");
    run.set_request_id(absl::StrCat("r", i));
    const absl::Status status = Try<v1::Job>(*red, &Stub::Run, run);
    if (i < 3) {
      LL_EXPECT_OK(status);
    } else {
      EXPECT_THAT(status, StatusIs(Code::kResourceExhausted, "unfinished jobs"));
    }
  }
}

}  // namespace
}  // namespace ll
