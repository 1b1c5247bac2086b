// Scopes, tenants and join tokens, without a server.

#include <set>

#include "absl/strings/str_cat.h"
#include "base/fake_clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "coordinator/api/auth.h"
#include "coordinator/api/join.h"
#include "coordinator/api/tenants.h"
#include "proto/admin.pb.h"
#include "proto/auth.pb.h"
#include "proto/jobs.pb.h"
#include "proto/schedules.pb.h"
#include "proto/workers.pb.h"
#include "rpc/pki.h"

namespace ll {
namespace {

// ---- scopes

// Every method of every service of the package states what it needs: whoever adds one is told here.
TEST(Scopes, EveryMethodStatesOne) {
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  int methods = 0;
  for (const auto* file :
       {v1::GetRequest::descriptor()->file(), v1::AgentMessage::descriptor()->file(),
        v1::VersionRequest::descriptor()->file(), v1::Schedule::descriptor()->file(),
        v1::JobSpec::descriptor()->file(), pool->FindFileByName("proto/auth.proto"),
        pool->FindFileByName("proto/errors.proto")}) {
    ASSERT_NE(file, nullptr);
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m, ++methods) {
        const std::string name = absl::StrCat("/", file->service(s)->full_name(), "/",
                                              file->service(s)->method(m)->name());
        EXPECT_TRUE(RequiredScope(name).ok()) << name << " has no required_scope in its proto";
      }
    }
  }
  EXPECT_EQ(methods, 30);
}

TEST(Scopes, ReadingNeverChangesAndTheRestDoes) {
  std::set<std::string> reads;
  for (const char* method :
       {"/ll.v1.Jobs/Get", "/ll.v1.Jobs/List", "/ll.v1.Jobs/Watch", "/ll.v1.Jobs/Logs",
        "/ll.v1.Jobs/Why", "/ll.v1.Jobs/Checkpoints", "/ll.v1.Admin/ListWorkers",
        "/ll.v1.Admin/ListQueues", "/ll.v1.Admin/ListModels", "/ll.v1.Admin/ListData",
        "/ll.v1.Admin/Version", "/ll.v1.Schedules/List", "/ll.v1.Schedules/Get"}) {
    EXPECT_FALSE(ChangesSomething(method)) << method;
    EXPECT_EQ(*RequiredScope(method), Scope::kRead) << method;
  }
  for (const char* method : {"/ll.v1.Jobs/Submit", "/ll.v1.Jobs/Cancel", "/ll.v1.Admin/AddModel",
                             "/ll.v1.Schedules/Delete", "/ll.v1.Workers/Join"}) {
    EXPECT_TRUE(ChangesSomething(method)) << method;
  }
  EXPECT_FALSE(RequiredScope("/ll.v1.Jobs/NotThere").ok());
  EXPECT_FALSE(RequiredScope("").ok());
  EXPECT_FALSE(IsOpenToAll("/ll.v1.Jobs/Get"));
}

// ---- tenants

TEST(TenantsFile, LimitsByNameAndForTheOthers) {
  LL_ASSERT_OK_AND_ASSIGN(const TenantTable table, ParseTenants(R"(
default: {unfinished_jobs: 1000}
tenants:
  red: {unfinished_jobs: 5, calls_per_second: 50, schedules: 2, schedule_interval: 300, queues: [red, night]}
  blue: {}
)"));
  EXPECT_EQ(table.Of("red").quota.unfinished_jobs, 5u);
  EXPECT_EQ(table.Of("red").quota.schedules, 2u);
  EXPECT_EQ(table.Of("red").schedule_interval, absl::Minutes(5));
  EXPECT_THAT(table.Of("red").queues, ::testing::ElementsAre("red", "night"));
  EXPECT_EQ(table.Of("blue").quota.unfinished_jobs, 0u);
  EXPECT_EQ(table.Of("").quota.unfinished_jobs, 1000u);
  LL_EXPECT_OK(ParseTenants("").status());
}

TEST(TenantsFile, WhatIsWrongIsNamed) {
  for (const auto& [text, why] : std::vector<std::pair<const char*, const char*>>{
           {"[", "YAML"},
           {"7", "the top"},
           {"other: {}", "other"},
           {"tenants: 7", "tenants"},
           {"tenants: {a/b: {}}", "a/b"},
           {"tenants: {red: 7}", "red"},
           {"tenants: {red: {unfinished_jobs: -1}}", "red.unfinished_jobs"},
           {"tenants: {red: {unfinished_jobs: many}}", "red.unfinished_jobs"},
           {"tenants: {red: {jobs: 1}}", "red.jobs"},
           {"tenants: {red: {queues: red}}", "red.queues"}}) {
    EXPECT_THAT(ParseTenants(text), StatusIs(absl::StatusCode::kInvalidArgument, why)) << text;
  }
}

// ---- joining

class JoinTest : public ::testing::Test {
 protected:
  JoinTest() {
    auto ca = MakeAuthority("test", kNow, absl::Hours(1000));
    EXPECT_TRUE(ca.ok());
    EXPECT_TRUE(WriteFileAtomic(dir_.path() + "/ca.crt", ca->certificate_pem).ok());
    EXPECT_TRUE(WriteFileAtomic(dir_.path() + "/ca.key", ca->key_pem, 0600).ok());
    request_.set_worker("w1");
    request_.set_csr_pem(MakeCsr("w1")->certificate_pem);
  }
  std::string Token(const std::string& worker, int uses) {
    auto token = MakeJoinToken(dir_.path(), worker, uses, kNow + absl::Hours(1), SystemRandom());
    EXPECT_TRUE(token.ok()) << token.status();
    return *token;
  }
  absl::StatusOr<v1::JoinResponse> Join(const std::string& token, bool known = false,
                                        absl::Time now = kNow) {
    request_.set_token(token);
    return desk_->Sign(request_, known, now);
  }
  static inline const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
  const TempDir dir_;
  v1::JoinRequest request_;
  std::unique_ptr<JoinDesk> desk_;
  void SetUp() override { desk_ = std::make_unique<JoinDesk>(dir_.path()); }
};

TEST_F(JoinTest, ATokenIsGoodForItsUsesItsNameAndItsTime) {
  const std::string once = Token("w1", 1);
  LL_ASSERT_OK_AND_ASSIGN(const v1::JoinResponse got, Join(once));
  EXPECT_THAT(got.certificate_pem(), ::testing::HasSubstr("BEGIN CERTIFICATE"));
  EXPECT_THAT(Join(once), StatusIs(absl::StatusCode::kUnauthenticated, "not any more"));

  const std::string late = Token("w1", 1);
  EXPECT_THAT(Join(late, false, kNow + absl::Hours(1)),
              StatusIs(absl::StatusCode::kUnauthenticated, "not any more"));
  const std::string other = Token("w2", 1);
  EXPECT_THAT(Join(other), StatusIs(absl::StatusCode::kUnauthenticated, "this name"));
  EXPECT_THAT(Join("guess"), StatusIs(absl::StatusCode::kUnauthenticated, "this name"));
  EXPECT_THAT(Join(""), StatusIs(absl::StatusCode::kUnauthenticated, "this name"));

  // One for any name does not take over a worker's; one for that name does.
  const std::string any = Token("", 2);
  EXPECT_THAT(Join(any, /*known=*/true), StatusIs(absl::StatusCode::kUnauthenticated, "this name"));
  LL_EXPECT_OK(Join(any).status());
  LL_EXPECT_OK(Join(any).status());
  EXPECT_FALSE(Join(any).ok());
  LL_EXPECT_OK(Join(Token("w1", 1), /*known=*/true).status());

  // Only hashes are kept.
  const std::string kept = Token("w9", 1);
  LL_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(dir_.path() + "/join-tokens.jsonl"));
  EXPECT_EQ(text.find(kept), std::string::npos);
}

TEST_F(JoinTest, ABadRequestCostsNoUse) {
  const std::string token = Token("", 1);
  const std::string good = request_.csr_pem();
  request_.set_csr_pem("rubbish");
  EXPECT_THAT(Join(token), StatusIs(absl::StatusCode::kInvalidArgument, "csr_pem"));
  request_.set_csr_pem(good);
  request_.set_worker("../w1");
  EXPECT_THAT(Join(token), StatusIs(absl::StatusCode::kInvalidArgument, "worker"));
  request_.set_worker("w1");
  LL_EXPECT_OK(Join(token).status());
  EXPECT_THAT(JoinDesk("").Sign(request_, false, kNow),
              StatusIs(absl::StatusCode::kFailedPrecondition, "signs no"));
}

// A line that somebody wrote by hand is no token, and takes nobody's away.
TEST_F(JoinTest, ALineThatIsNoTokenIsLeftOut) {
  const std::string token = Token("w1", 1);
  LL_ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(dir_.path() + "/join-tokens.jsonl"));
  LL_ASSERT_OK(WriteFileAtomic(dir_.path() + "/join-tokens.jsonl",
                               R"({"token_sha256":5,"uses":"many","expires":["never"],"worker":{}})"
                               "\n" +
                                   text));
  EXPECT_THAT(Join("guess"), StatusIs(absl::StatusCode::kUnauthenticated, "this name"));
  LL_EXPECT_OK(Join(token).status());
}

}  // namespace
}  // namespace ll
