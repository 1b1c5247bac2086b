#include "rpc/channel.h"

#include "base/field_error.h"
#include "base/status_matchers.h"
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

TEST(Channel, NamesAMissingPemFile) {
  const auto got = MakeChannel({.addresses = {"127.0.0.1:7070"}, .ca_file = "/nonexistent/ca.pem"});
  EXPECT_THAT(got, StatusIs(absl::StatusCode::kNotFound, "/nonexistent/ca.pem"));
}

TEST(ServerTls, HalfAPairIsRefused) {
  EXPECT_THAT(MakeServerCredentials({.cert_file = "x.pem"}),
              StatusIs(absl::StatusCode::kInvalidArgument, "--tls-key"));
  EXPECT_THAT(MakeServerCredentials({.client_ca_file = "ca.pem"}),
              StatusIs(absl::StatusCode::kInvalidArgument, "--tls-cert"));
}

}  // namespace
}  // namespace ll
