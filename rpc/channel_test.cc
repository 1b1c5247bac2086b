#include "rpc/channel.h"

#include <chrono>

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "base/field_error.h"
#include "base/status_matchers.h"
#include "proto/admin.grpc.pb.h"
#include "rpc/server.h"

namespace ll {
namespace {

TEST(HostPort, ReadsNamesAndAddresses) {
  LL_ASSERT_OK_AND_ASSIGN(HostPort name, ParseHostPort("node1.example:7070", "listen"));
  EXPECT_EQ(name.host, "node1.example");
  EXPECT_EQ(name.port, 7070);
  LL_ASSERT_OK_AND_ASSIGN(HostPort v6, ParseHostPort("[::1]:0", "listen"));
  EXPECT_EQ(v6.host, "::1");
  EXPECT_EQ(v6.port, 0);
}

TEST(HostPort, RefusesWhatIsNotOneAndNamesTheFlag) {
  for (const char* text :
       {"", "host", ":7070", "host:", "host:99999", "host:-1", "host:7 0", "::1:7070", "h:+7"}) {
    const auto got = ParseHostPort(text, "listen");
    ASSERT_FALSE(got.ok()) << text;
    EXPECT_EQ(ErrorField(got.status()), "listen") << text;
  }
}

TEST(Addresses, SeveralAndNoPortZero) {
  LL_ASSERT_OK_AND_ASSIGN(auto list, ParseAddresses("a:1,b:2"));
  EXPECT_EQ(list, (std::vector<std::string>{"a:1", "b:2"}));
  EXPECT_FALSE(ParseAddresses("a:1,").ok());
  EXPECT_FALSE(ParseAddresses("a:0").ok());
}

TEST(Loopback, OnlyThisHost) {
  EXPECT_TRUE(IsLoopbackHost("127.0.0.1"));
  EXPECT_TRUE(IsLoopbackHost("127.9.9.9"));
  EXPECT_TRUE(IsLoopbackHost("::1"));
  EXPECT_TRUE(IsLoopbackHost("localhost"));
  EXPECT_FALSE(IsLoopbackHost("0.0.0.0"));
  EXPECT_FALSE(IsLoopbackHost("128.0.0.1"));
  EXPECT_FALSE(IsLoopbackHost("127.0.0.1.example.com"));
  EXPECT_FALSE(IsLoopbackHost("localhost.example.com"));
}

TEST(Channel, NeverSendsATokenUnencryptedToAnotherHost) {
  const auto got = MakeChannel({.addresses = {"192.0.2.1:7070"}, .token = "secret"});
  EXPECT_THAT(got, StatusIs(absl::StatusCode::kFailedPrecondition, "not sent unencrypted"));
  LL_EXPECT_OK(MakeChannel({.addresses = {"127.0.0.1:7070"}, .token = "secret"}));
}

// Such metadata would end the process within gRPC.
TEST(Channel, ATokenThatCannotBeSentIsRefusedAndNotRepeated) {
  for (const std::string& token :
       {std::string("s3c\nret"), std::string("s3c ret"), std::string(1, '\0')}) {
    const auto got = MakeChannel({.addresses = {"127.0.0.1:7070"}, .token = token});
    EXPECT_THAT(got, StatusIs(absl::StatusCode::kInvalidArgument, "token: expected printable"));
    EXPECT_EQ(got.status().message().find("s3c"), absl::string_view::npos);
  }
}

TEST(Channel, NamesAMissingPemFile) {
  const auto got = MakeChannel({.addresses = {"127.0.0.1:7070"}, .ca_file = "/nonexistent/ca.pem"});
  EXPECT_THAT(got, StatusIs(absl::StatusCode::kNotFound, "/nonexistent/ca.pem"));
}

// A coordinator as its clients see it: it answers, and tells whether it serves.
class Standby {
 public:
  explicit Standby(bool serves, const std::string& host = "127.0.0.1") : host_(host) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    ApplyServerLimits(builder);
    builder.AddListeningPort(host + ":0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&admin_);
    server_ = builder.BuildAndStart();
    Serve(serves);
  }
  void Serve(bool serves) { server_->GetHealthCheckService()->SetServingStatus(serves); }
  void Kill() { server_->Shutdown(std::chrono::system_clock::now()); }
  std::string address() const { return absl::StrCat(host_, ":", port_); }

 private:
  const std::string host_;
  int port_ = 0;
  v1::Admin::CallbackService admin_;
  std::unique_ptr<grpc::Server> server_;
};

// Calls until an answer other than UNAVAILABLE comes: UNIMPLEMENTED, the bare service's.
grpc::StatusCode Ask(const std::shared_ptr<grpc::Channel>& channel, absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  const auto stub = v1::Admin::NewStub(channel);
  while (true) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    v1::VersionResponse answer;
    const grpc::StatusCode code = stub->Version(&context, {}, &answer).error_code();
    if (code != grpc::StatusCode::UNAVAILABLE || absl::Now() > deadline) return code;
    absl::SleepFor(absl::Milliseconds(10));
  }
}

// The first address is a standby that can be reached; then it leads and the other does not; then it
// is gone.
TEST(Channel, FollowsTheOneThatServes) {
  Standby a(false), b(true);
  LL_ASSERT_OK_AND_ASSIGN(auto channel, MakeChannel({.addresses = {a.address(), b.address()}}));
  EXPECT_EQ(Ask(channel, absl::Seconds(5)), grpc::StatusCode::UNIMPLEMENTED);
  b.Serve(false);
  absl::Time until = absl::Now() + absl::Seconds(5);
  while (channel->GetState(false) == GRPC_CHANNEL_READY && absl::Now() < until)
    absl::SleepFor(absl::Milliseconds(5));
  EXPECT_NE(Ask(channel, absl::Milliseconds(200)), grpc::StatusCode::UNIMPLEMENTED);
  a.Serve(true);
  const absl::Time changed = absl::Now();
  EXPECT_EQ(Ask(channel, absl::Seconds(5)), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_LT(absl::Now() - changed, absl::Seconds(1));
  a.Kill();
  b.Serve(true);
  EXPECT_EQ(Ask(channel, absl::Seconds(5)), grpc::StatusCode::UNIMPLEMENTED);
}

TEST(Channel, SeveralMayBeOfIpv6OrOfBothFamilies) {
  Standby away(false, "[::1]"), four(true), six(true, "[::1]");
  for (const Standby* serves : {&four, &six}) {
    LL_ASSERT_OK_AND_ASSIGN(auto channel,
                            MakeChannel({.addresses = {away.address(), serves->address()}}));
    EXPECT_EQ(Ask(channel, absl::Seconds(5)), grpc::StatusCode::UNIMPLEMENTED);
  }
}

TEST(ServerTls, HalfAPairIsRefused) {
  EXPECT_THAT(MakeServerCredentials({.cert_file = "x.pem"}),
              StatusIs(absl::StatusCode::kInvalidArgument, "--tls-key"));
  EXPECT_THAT(MakeServerCredentials({.client_ca_file = "ca.pem"}),
              StatusIs(absl::StatusCode::kInvalidArgument, "--tls-cert"));
}

}  // namespace
}  // namespace ll
