#include "coordinator/api/auth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "base/fake_clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "proto/admin.pb.h"
#include "proto/jobs.pb.h"
#include "proto/schedules.pb.h"
#include "proto/workers.pb.h"

namespace ll {
namespace {
using ::testing::HasSubstr;

class AuthTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Authenticator>> Make(AuthOptions options) {
    return Authenticator::Create(std::move(options), clock_);
  }
  absl::StatusOr<Caller> Ask(Authenticator& auth, const std::string& method,
                             const std::string& header) {
    Authenticator::Metadata metadata;
    if (!header.empty()) metadata.insert({"authorization", header});
    return auth.Check(method, metadata, nullptr);
  }
  std::string Line(const std::string& token, const std::string& scopes,
                   const std::string& more = "") {
    return absl::StrCat("{\"token_sha256\":\"", Sha256Hex(token),
                        "\",\"user\":\"ann\",\"scopes\":[", scopes, "]", more, "}\n");
  }
  FakeClock clock_;
};

TEST_F(AuthTest, EveryMethodOfEveryServiceHasAScope) {
  int methods = 0;
  for (const auto* file :
       {v1::SubmitRequest::descriptor()->file(), v1::Hello::descriptor()->file(),
        v1::AddModelRequest::descriptor()->file(), v1::Schedule::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m, ++methods) {
        const auto* method = file->service(s)->method(m);
        EXPECT_TRUE(
            RequiredScope(absl::StrCat("/", file->service(s)->full_name(), "/", method->name()))
                .ok())
            << method->full_name();
      }
    }
  }
  EXPECT_GE(methods, 16);
  EXPECT_FALSE(RequiredScope("/ll.v1.Jobs/Unknown").ok());
}

TEST_F(AuthTest, TokensWorkByScopeAndExpire) {
  TempDir dir;
  const std::string file = dir.path() + "/tokens";
  LL_ASSERT_OK(WriteFileAtomic(
      file, Line("reader", "\"read\"") + "\n" +
                Line("boss", "\"admin\"", ",\"expires\":\"2023-11-15T00:00:00Z\"")));
  LL_ASSERT_OK_AND_ASSIGN(auto auth, Make({.tokens_file = file}));
  LL_ASSERT_OK_AND_ASSIGN(Caller caller, Ask(*auth, "/ll.v1.Jobs/Get", "Bearer reader"));
  EXPECT_EQ(caller.user, "ann");
  EXPECT_THAT(Ask(*auth, "/ll.v1.Jobs/Submit", "Bearer reader"),
              StatusIs(absl::StatusCode::kPermissionDenied, "ann"));
  LL_EXPECT_OK(Ask(*auth, "/ll.v1.Jobs/Submit", "Bearer boss"));
  for (const char* header :
       {"", "Bearer", "Bearer ", "Bearer wrong", "reader", "Basic reader", "bearer reader"}) {
    EXPECT_THAT(Ask(*auth, "/ll.v1.Jobs/Get", header),
                StatusIs(absl::StatusCode::kUnauthenticated, "token"))
        << header;
  }
  EXPECT_THAT(Ask(*auth, "/ll.v1.Jobs/Nope", "Bearer boss"),
              StatusIs(absl::StatusCode::kPermissionDenied, "Nope"));
  clock_.Advance(absl::Hours(24));
  EXPECT_THAT(Ask(*auth, "/ll.v1.Jobs/Get", "Bearer boss"),
              StatusIs(absl::StatusCode::kUnauthenticated, "expired"));
}

TEST_F(AuthTest, AChangedTokensFileTakesEffectAndABrokenOneDoesNot) {
  TempDir dir;
  const std::string file = dir.path() + "/tokens";
  LL_ASSERT_OK(WriteFileAtomic(file, Line("one", "\"read\"")));
  LL_ASSERT_OK_AND_ASSIGN(auto auth, Make({.tokens_file = file}));
  LL_ASSERT_OK(WriteFileAtomic(file, Line("two", "\"read\"")));
  clock_.Advance(absl::Seconds(2));
  EXPECT_FALSE(Ask(*auth, "/ll.v1.Jobs/Get", "Bearer one").ok());
  LL_EXPECT_OK(Ask(*auth, "/ll.v1.Jobs/Get", "Bearer two"));
  LL_ASSERT_OK(WriteFileAtomic(file, "garbage"));
  clock_.Advance(absl::Seconds(2));
  LL_EXPECT_OK(Ask(*auth, "/ll.v1.Jobs/Get", "Bearer two"));
}

TEST_F(AuthTest, AWrongTokensFileStopsTheStart) {
  TempDir dir;
  const std::string file = dir.path() + "/tokens";
  for (const std::string& text : {std::string("x"), std::string("{}"), Line("t", "\"fly\""),
                                  Line("t", "\"read\"", ",\"expires\":\"soon\"")}) {
    LL_ASSERT_OK(WriteFileAtomic(file, Line("ok", "\"read\"") + text));
    EXPECT_THAT(Make({.tokens_file = file}), StatusIs(absl::StatusCode::kInvalidArgument, "line 2"))
        << text;
  }
  EXPECT_FALSE(Make({.tokens_file = dir.path() + "/none"}).ok());
}

TEST_F(AuthTest, AFileThatEverybodyMayWriteGivesNoRights) {
  TempDir dir;
  const std::string file = dir.path() + "/tokens";
  LL_ASSERT_OK(WriteFileAtomic(file, Line("one", "\"read\"")));
  LL_ASSERT_OK_AND_ASSIGN(auto auth, Make({.tokens_file = file}));
  LL_ASSERT_OK(WriteFileAtomic(file, Line("two", "\"admin\"")));
  ASSERT_EQ(chmod(file.c_str(), 0666), 0);
  clock_.Advance(absl::Seconds(2));
  LL_EXPECT_OK(Ask(*auth, "/ll.v1.Jobs/Get", "Bearer one"));
  EXPECT_FALSE(Ask(*auth, "/ll.v1.Jobs/Get", "Bearer two").ok());
  for (const AuthOptions& options :
       {AuthOptions{.tokens_file = file}, AuthOptions{.oidc = {.keys_file = file}}}) {
    EXPECT_THAT(Make(options), StatusIs(absl::StatusCode::kFailedPrecondition, "may write"));
  }
  ASSERT_EQ(chmod(file.c_str(), 0600), 0);
  clock_.Advance(absl::Seconds(2));
  LL_EXPECT_OK(Ask(*auth, "/ll.v1.Jobs/Get", "Bearer two"));
}

TEST_F(AuthTest, CallsOfOneUserAreLimited) {
  LL_ASSERT_OK_AND_ASSIGN(
      auto auth, Make({.local_token = "t", .local_user = "me", .max_calls_per_second = 10}));
  int allowed = 0;
  for (int i = 0; i < 100; ++i) allowed += Ask(*auth, "/ll.v1.Jobs/Get", "Bearer t").ok();
  EXPECT_EQ(allowed, 10);
  EXPECT_THAT(Ask(*auth, "/ll.v1.Jobs/Get", "Bearer t"),
              StatusIs(absl::StatusCode::kResourceExhausted, "10"));
  clock_.Advance(absl::Seconds(1));
  LL_EXPECT_OK(Ask(*auth, "/ll.v1.Jobs/Get", "Bearer t"));
}

TEST_F(AuthTest, WorkersNeedACertificateWhereACaIsSet) {
  LL_ASSERT_OK_AND_ASSIGN(auto auth, Make({.local_token = "t", .worker_certificates = true}));
  EXPECT_THAT(Ask(*auth, "/ll.v1.Workers/Session", "Bearer t"),
              StatusIs(absl::StatusCode::kUnauthenticated, "certificate"));
  LL_EXPECT_OK(Ask(*auth, "/ll.v1.Jobs/Get", "Bearer t"));
}

TEST_F(AuthTest, TheLocalTokenIsMadeOnceAndKeptSecret) {
  TempDir dir;
  LL_ASSERT_OK_AND_ASSIGN(std::string token, LocalToken(dir.path()));
  EXPECT_GE(token.size(), 32u);
  EXPECT_EQ(LocalToken(dir.path()).value(), token);
  struct stat st;
  ASSERT_EQ(stat((dir.path() + "/token").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  ASSERT_EQ(chmod((dir.path() + "/token").c_str(), 0644), 0);
  EXPECT_THAT(LocalToken(dir.path()),
              StatusIs(absl::StatusCode::kFailedPrecondition, "others may read it"));
}

}  // namespace
}  // namespace ll
