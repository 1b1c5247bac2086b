#include "coordinator/web/site.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/fake_clock.h"
#include "base/field_error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rpc/status.h"

namespace ll {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kHostile[] = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\xff";

using Field = google::protobuf::FieldDescriptor;

// Every text a service could send is hostile, every list has two members, every number is 7.
void Fill(google::protobuf::Message* message, int depth = 0) {
  const auto* reflection = message->GetReflection();
  const auto* descriptor = message->GetDescriptor();
  // A number, or it would not become JSON in finite depth.
  if (descriptor->full_name() == "google.protobuf.Value") {
    reflection->SetString(message, descriptor->FindFieldByName("string_value"),
                          "</dd><script>alert(3)</script>");
    return;
  }
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const Field* field = descriptor->field(i);
    if (field->containing_oneof() != nullptr && !field->has_optional_keyword()) continue;
    const bool text = field->type() == Field::TYPE_STRING || field->type() == Field::TYPE_BYTES;
    const std::string value = field->type() == Field::TYPE_STRING
                                  ? std::string(kHostile, sizeof(kHostile) - 2)
                                  : kHostile;
    for (int n = 0; n < (field->is_repeated() ? 2 : 1); ++n) {
      if (field->cpp_type() == Field::CPPTYPE_MESSAGE) {
        if (depth > 4) continue;
        if (field->message_type()->full_name() == "google.protobuf.Timestamp") {
          auto* time = reflection->MutableMessage(message, field);
          time->GetReflection()->SetInt64(time, time->GetDescriptor()->FindFieldByName("seconds"),
                                          1774573200);
          continue;
        }
        Fill(field->is_repeated() ? reflection->AddMessage(message, field)
                                  : reflection->MutableMessage(message, field),
             depth + 1);
      } else if (text) {
        field->is_repeated() ? reflection->AddString(message, field, value)
                             : reflection->SetString(message, field, value);
      } else if (!field->is_repeated()) {
        switch (field->cpp_type()) {
          case Field::CPPTYPE_INT32:
            reflection->SetInt32(message, field, 7);
            break;
          case Field::CPPTYPE_INT64:
            reflection->SetInt64(message, field, 7);
            break;
          case Field::CPPTYPE_DOUBLE:
            reflection->SetDouble(message, field, 7.5);
            break;
          case Field::CPPTYPE_BOOL:
            reflection->SetBool(message, field, true);
            break;
          case Field::CPPTYPE_ENUM:
            reflection->SetEnumValue(message, field, 2);
            break;
          default:
            break;
        }
      }
    }
  }
}

// A caller must have the token "good".
grpc::Status Check(const grpc::ServerContext* context) {
  const auto& metadata = context->client_metadata();
  const auto found = metadata.find("authorization");
  if (found != metadata.end() && found->second == "Bearer good") return grpc::Status::OK;
  return ToGrpcStatus(absl::UnauthenticatedError("unknown token"));
}

template <typename Response>
grpc::Status Answer(const grpc::ServerContext* context, Response* response) {
  grpc::Status status = Check(context);
  if (status.ok()) Fill(response);
  return status;
}

struct Jobs : v1::Jobs::Service {
  grpc::Status List(grpc::ServerContext* c, const v1::ListRequest* request,
                    v1::ListResponse* r) override {
    asked = *request;
    return Answer(c, r);
  }
  grpc::Status Get(grpc::ServerContext* c, const v1::GetRequest* request, v1::Job* r) override {
    if (request->job_id() == "job-none")
      return ToGrpcStatus(FieldStatus(absl::StatusCode::kNotFound, "job_id",
                                      "there is no job job-none", "llctl list shows the jobs"));
    gets += request->history();
    const grpc::Status status = Answer(c, r);
    r->set_job_id(request->job_id());
    r->set_state(state);
    r->clear_steps();
    for (int i = 1; i <= 5 && request->history(); ++i) {
      r->add_steps()->set_step(i);
      r->mutable_steps(i - 1)->set_loss(5 - i);
    }
    return status;
  }
  grpc::Status Why(grpc::ServerContext* c, const v1::WhyRequest*, v1::WhyResponse* r) override {
    return Answer(c, r);
  }
  grpc::Status Checkpoints(grpc::ServerContext* c, const v1::CheckpointsRequest*,
                           v1::CheckpointsResponse* r) override {
    return Answer(c, r);
  }
  grpc::Status Logs(grpc::ServerContext* c, const v1::LogsRequest*,
                    grpc::ServerWriter<v1::LogsResponse>* writer) override {
    v1::LogsResponse piece;
    Fill(&piece);
    writer->Write(piece);
    return Check(c);
  }
  v1::ListRequest asked;
  v1::JobState state = v1::RUNNING;
  int gets = 0;
};

struct Admin : v1::Admin::Service {
  grpc::Status ListWorkers(grpc::ServerContext* c, const v1::ListWorkersRequest*,
                           v1::ListWorkersResponse* r) override {
    const grpc::Status status = Answer(c, r);
    if (!placed.empty()) {  // rank 0 of it, in the attempt and slot of that number that is in all
      v1::SlotUse* use = r->mutable_workers(0)->mutable_uses(0);
      use->set_job_id(placed);
      use->set_rank(0);
    }
    return status;
  }
  std::string placed;
  grpc::Status ListQueues(grpc::ServerContext* c, const v1::ListQueuesRequest*,
                          v1::ListQueuesResponse* r) override {
    return Answer(c, r);
  }
};

struct Schedules : v1::Schedules::Service {
  grpc::Status List(grpc::ServerContext* c, const v1::ListSchedulesRequest*,
                    v1::ListSchedulesResponse* r) override {
    return Answer(c, r);
  }
  grpc::Status Get(grpc::ServerContext* c, const v1::GetScheduleRequest*,
                   v1::Schedule* r) override {
    return Answer(c, r);
  }
};

std::string HeaderOf(const HttpAnswer& answer, const std::string& name) {
  for (const auto& [key, value] : answer.headers) {
    if (key == name) return value;
  }
  return "";
}

class SiteTest : public ::testing::Test {
 protected:
  SiteTest() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&jobs_);
    builder.RegisterService(&admin_);
    builder.RegisterService(&schedules_);
    server_ = builder.BuildAndStart();
    site_ = std::make_unique<Site>(server_->InProcessChannel({}), clock_, random_);
  }
  HttpAnswer Get(const std::string& path, const std::string& query = "") {
    HttpQuestion request{.method = "GET", .path = path, .query = query, .headers = {}, .body = ""};
    if (!cookie_.empty()) request.headers["Cookie"] = absl::StrCat("other=1; ", cookie_, "; z=2");
    return site_->Serve(request);
  }
  HttpAnswer Post(const std::string& path, const std::string& body) {
    HttpQuestion request{.method = "POST", .path = path, .query = "", .headers = {}, .body = body};
    if (!cookie_.empty()) request.headers["Cookie"] = cookie_;
    return site_->Serve(request);
  }
  void LogIn() {
    const HttpAnswer answer = Post("/login", "token=good&next=%2F");
    ASSERT_EQ(answer.status, 303) << answer.body;
    const std::string set = HeaderOf(answer, "Set-Cookie");
    cookie_ = set.substr(0, set.find(';'));
  }

  FakeClock clock_;
  SeededRandom random_{7};
  Jobs jobs_;
  Admin admin_;
  Schedules schedules_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Site> site_;
  std::string cookie_;
};

const std::vector<std::string>& AllPages() {
  static const auto* pages = new std::vector<std::string>{
      "/",          "/jobs/job-000000000001", "/jobs/job-000000000001/log", "/queues", "/workers",
      "/schedules", "/schedules/nightly"};
  return *pages;
}

TEST_F(SiteTest, NothingIsShownWithoutAToken) {
  for (const std::string& path : AllPages()) {
    const HttpAnswer answer = Get(path);
    EXPECT_EQ(answer.status, 303) << path;
    EXPECT_THAT(HeaderOf(answer, "Location"), StartsWith("/login?next=%2F"));
    EXPECT_EQ(answer.body, "");
  }
  EXPECT_EQ(HeaderOf(Get("/", "state=failed"), "Location"), "/login?next=%2F%3Fstate%3Dfailed");
  EXPECT_EQ(Get("/login").status, 200);
  EXPECT_EQ(Get("/ui/ll.css").status, 200);
  EXPECT_EQ(Get("/ui/../coordinator").status, 404);
}

TEST_F(SiteTest, LogsInAndOut) {
  EXPECT_EQ(Post("/login", "token=bad").status, 401);
  EXPECT_EQ(Post("/login", "token=").status, 400);
  EXPECT_EQ(Post("/login", "token=a%0d%0ab").status, 401);  // never becomes a header
  const HttpAnswer answer = Post("/login", "token=good&next=%2Fqueues");
  EXPECT_EQ(HeaderOf(answer, "Location"), "/queues");
  EXPECT_THAT(HeaderOf(answer, "Set-Cookie"),
              AllOf(HasSubstr("; HttpOnly; SameSite=Strict"), Not(HasSubstr("good"))));
  LogIn();
  EXPECT_EQ(Get("/queues").status, 200);
  const std::string old = cookie_;
  EXPECT_EQ(HeaderOf(Post("/logout", ""), "Location"), "/login");
  EXPECT_EQ(Get("/queues").status, 303);
  cookie_ = old;
  EXPECT_EQ(Get("/queues").status, 303);
}

TEST_F(SiteTest, ASessionEndsWhenItIsIdle) {
  LogIn();
  clock_.Advance(Sessions::kIdle - absl::Minutes(1));
  EXPECT_EQ(Get("/").status, 200);
  clock_.Advance(Sessions::kIdle - absl::Minutes(1));
  EXPECT_EQ(Get("/").status, 200);
  clock_.Advance(Sessions::kIdle + absl::Minutes(1));
  EXPECT_EQ(Get("/").status, 303);
}

TEST_F(SiteTest, SendsNobodyElsewhere) {
  for (const char* next : {"https://evil.example", "//evil.example", "/\\evil.example",
                           "/%0d%0aSet-Cookie:a", "", "javascript:1"}) {
    EXPECT_EQ(HeaderOf(Post("/login", absl::StrCat("token=good&next=", next)), "Location"), "/")
        << next;
  }
}

TEST_F(SiteTest, AProgramSendsItsToken) {
  HttpQuestion request{.method = "GET",
                       .path = "/queues",
                       .query = "",
                       .headers = {{"Authorization", "Bearer good"}},
                       .body = ""};
  EXPECT_EQ(site_->Serve(request).status, 200);
  request.headers["Authorization"] = "Bearer bad";
  EXPECT_EQ(site_->Serve(request).status, 401);
}

// gRPC ends the process over metadata that is not printable.
TEST_F(SiteTest, ATokenThatNoTokenCanBeIsUnknown) {
  for (const std::string bad : {"\x01", "g\xc3\xb6od", "good\x7f", "good\ngood", "\t"}) {
    const HttpQuestion request{.method = "GET",
                               .path = "/queues",
                               .query = "",
                               .headers = {{"Authorization", "Bearer " + bad}},
                               .body = ""};
    EXPECT_EQ(site_->Serve(request).status, 401) << bad;
  }
}

TEST_F(SiteTest, RanksTellWhatTheirGpusDo) {
  LogIn();
  EXPECT_THAT(Get("/jobs/job-000000000001").body, Not(HasSubstr("GPU use")));
  admin_.placed = "job-000000000001";
  const std::string body = Get("/jobs/job-000000000001").body;
  for (const char* text :
       {">GPU use</th>", ">GPU memory</th>", ">750 %</td>", ">7 B</td>", ">8 W</td>", ">8 °C</td>"})
    EXPECT_THAT(body, HasSubstr(text));
}

TEST_F(SiteTest, WhatUsersWroteStaysText) {
  LogIn();
  for (const std::string& path : AllPages()) {
    const HttpAnswer answer = Get(path);
    EXPECT_EQ(answer.status, 200) << path;
    EXPECT_THAT(answer.body, HasSubstr("&lt;script&gt;alert(")) << path;
    EXPECT_THAT(answer.body, Not(HasSubstr("<script>"))) << path;
    EXPECT_THAT(answer.body, Not(HasSubstr("<img"))) << path;
    EXPECT_THAT(answer.body, Not(HasSubstr("\"'"))) << path;
    EXPECT_THAT(answer.body, Not(HasSubstr("\x1b"))) << path;
  }
  const HttpAnswer other = Get("/", "label=%22%3E%3Cscript%3E&n=25&state=failed");
  EXPECT_THAT(other.body, Not(HasSubstr("\"><script>")));
}

TEST_F(SiteTest, EveryAnswerForbidsScriptsOfOthers) {
  LogIn();
  for (const char* path : {"/", "/login", "/ui/ll.js", "/nothing", "/jobs/job-none"}) {
    const HttpAnswer answer = Get(path);
    const std::string policy = HeaderOf(answer, "Content-Security-Policy");
    EXPECT_THAT(policy, HasSubstr("default-src 'none'")) << path;
    EXPECT_THAT(policy, Not(HasSubstr("unsafe"))) << path;
    EXPECT_THAT(policy, HasSubstr("frame-ancestors 'none'")) << path;
    for (const char* inline_code :
         {"style=\"", "onclick=", "<style", "javascript:", "http://", "https://"}) {
      if (!absl::StrContains(answer.type, "html")) continue;
      EXPECT_THAT(answer.body, Not(HasSubstr(inline_code))) << path;
    }
  }
}

TEST_F(SiteTest, ErrorsAreTheServices) {
  LogIn();
  const HttpAnswer none = Get("/jobs/job-none");
  EXPECT_EQ(none.status, 404);
  EXPECT_THAT(none.body,
              AllOf(HasSubstr("there is no job job-none"), HasSubstr("llctl list shows the jobs")));
  EXPECT_EQ(Get("/nothing").status, 404);
  EXPECT_EQ(Get("/", "n=9999").status, 400);
  EXPECT_EQ(Get("/", "state=odd").status, 400);
  EXPECT_EQ(Get("/jobs/job-1/log", "rank=x").status, 400);
  EXPECT_EQ(Post("/jobs/job-1", "").status, 405);
}

TEST_F(SiteTest, AsksForWhatTheFormSays) {
  LogIn();
  Get("/", "n=25&state=waiting&label=team%3Dnlp,%20stage&from=12");
  EXPECT_EQ(jobs_.asked.page_size(), 25);
  EXPECT_EQ(jobs_.asked.page_token(), "12");
  EXPECT_THAT(jobs_.asked.states(), ::testing::ElementsAre(v1::BLOCKED, v1::QUEUED, v1::PAUSED));
  EXPECT_EQ(jobs_.asked.labels().at("team"), "nlp");
}

TEST_F(SiteTest, CurvesAreDrawnAnewOnlyForNewSteps) {
  LogIn();
  const HttpAnswer first = Get("/jobs/job-000000000001");
  EXPECT_THAT(first.body, HasSubstr("aria-label=\"Loss by step: from 4 to 0"));
  EXPECT_THAT(first.body, HasSubstr("data-refresh=\"3\""));
  Get("/jobs/job-000000000001");
  EXPECT_EQ(jobs_.gets, 1);
  jobs_.state = v1::SUCCEEDED;
  EXPECT_THAT(Get("/jobs/job-000000000001").body, HasSubstr("data-refresh=\"0\""));
}

}  // namespace
}  // namespace ll
