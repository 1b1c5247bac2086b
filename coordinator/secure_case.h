// A coordinator behind TLS with an authority, certificates and tokens made for the test.
#pragma once

#include <string>

#include "base/sha256.h"
#include "coordinator/coordinator_case.h"
#include "rpc/pki.h"

namespace ll {

// Tokens are "secret" (ann, administrator), "bobs" (bob, submit), and in tenants: "reds" and
// "reds-too" (red), "blues" (blue), each with read, submit and cancel; "old" has expired, "nothing"
// has no scope, "workers" has the agents' scope.
class SecureTest : public CoordinatorTest {
 protected:
  void SetUp() override {
    CoordinatorTest::SetUp();
    MakeCertificates("");
    const std::string d = under_test_.dir() + "/";
    under_test_.options.tls_cert = d + "server.crt";
    under_test_.options.tls_key = d + "server.key";
    under_test_.options.tls_client_ca = d + "ca.crt";
    under_test_.options.tokens = d + "tokens";
    WriteTokens();
    Configure();
    LL_ASSERT_OK(under_test_.Start());
  }
  virtual void Configure() {}

  // An authority, and for it server, worker w1, w2 and user bob; their files' names begin with
  // `prefix`.
  void MakeCertificates(const std::string& prefix) {
    const absl::Time now = absl::Now();
    LL_ASSERT_OK_AND_ASSIGN(authority_, MakeAuthority(prefix + "test", now, absl::Hours(48)));
    LL_ASSERT_OK(WriteFileAtomic(File(prefix + "ca.crt"), authority_.certificate_pem));
    MakePair(prefix + "server", {.hosts = {"localhost", "127.0.0.1"}});
    MakePair(prefix + "w1", {.worker = "w1"});
    MakePair(prefix + "w2", {.worker = "w2"});
    MakePair(prefix + "bob", {.user = "bob"});
  }
  void MakePair(const std::string& name, const CertificateSubject& subject,
                absl::Time now = absl::Now()) {
    LL_ASSERT_OK_AND_ASSIGN(const KeyPair made, Issue(authority_, subject, now, absl::Hours(24)));
    LL_ASSERT_OK(WriteFileAtomic(File(name + ".key"), made.key_pem, 0600));
    LL_ASSERT_OK(WriteFileAtomic(File(name + ".crt"), made.certificate_pem));
  }
  void WriteTokens() {
    const auto line = [](const std::string& token, const std::string& rest) {
      return absl::StrCat("{\"token_sha256\":\"", Sha256Hex(token), "\",", rest, "}\n");
    };
    const std::string all = "\"scopes\":[\"read\",\"submit\",\"cancel\"]";
    LL_ASSERT_OK(WriteFileAtomic(
        File("tokens"),
        absl::StrCat(line("secret", R"("user":"ann","scopes":["admin"])"),
                     line("bobs", R"("user":"bob","scopes":["submit"])"),
                     line("bob-reads", R"("user":"bob",)" + all),
                     line("reds", R"("user":"rita","tenant":"red",)" + all),
                     line("reds-too", R"("user":"rob","tenant":"red",)" + all),
                     line("blues", R"("user":"bea","tenant":"blue",)" + all),
                     line("old", R"("user":"olaf","expires":"2020-01-01T00:00:00Z",)" + all),
                     line("nothing", R"("user":"nina","scopes":[])"),
                     line("workers", R"("user":"agents","scopes":["worker"])"))));
  }
  std::string File(const std::string& name) { return under_test_.dir() + "/" + name; }
  std::shared_ptr<grpc::Channel> Secure(const std::string& certificate, const std::string& token,
                                        const std::string& ca = "ca.crt") {
    ChannelConfig config{.addresses = {under_test_.address()}, .ca_file = File(ca), .token = token};
    if (!certificate.empty()) {
      config.cert_file = File(certificate + ".crt");
      config.key_file = File(certificate + ".key");
    }
    auto channel = MakeChannel(config);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return *channel;
  }
  std::unique_ptr<v1::Jobs::Stub> JobsOf(const std::string& token) {
    return v1::Jobs::NewStub(Secure("", token));
  }
  // The id of a new job of the token's owner.
  std::string SubmitAs(const std::string& token, const std::string& request_id = "") {
    auto submitted = CallOnce<v1::SubmitResponse>(*JobsOf(token), &v1::Jobs::Stub::Submit,
                                                  Request(1, request_id));
    EXPECT_TRUE(submitted.ok()) << submitted.status();
    return submitted.ok() ? submitted->job().job_id() : "";
  }

  KeyPair authority_;
};

}  // namespace ll
