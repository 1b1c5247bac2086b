#include "rpc/pki.h"

#include <sys/stat.h>

#include "base/field_error.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

TEST(Pki, AnAuthoritySignsForEachKindAndNeverBeyondItsOwnEnd) {
  LL_ASSERT_OK_AND_ASSIGN(const KeyPair ca, MakeAuthority("test", kNow, absl::Hours(48)));
  for (const CertificateSubject& subject :
       {CertificateSubject{.worker = "w1"}, CertificateSubject{.user = "ann"},
        CertificateSubject{.hosts = {"localhost", "127.0.0.1", "::1", "*.example.org"}}}) {
    LL_ASSERT_OK_AND_ASSIGN(const KeyPair made, Issue(ca, subject, kNow, absl::Hours(24)));
    LL_ASSERT_OK_AND_ASSIGN(absl::Time end, ExpiryOf(made.certificate_pem));
    EXPECT_EQ(end, kNow + absl::Hours(24));
    LL_ASSERT_OK_AND_ASSIGN(const KeyPair longer, Issue(ca, subject, kNow, absl::Hours(999)));
    LL_ASSERT_OK_AND_ASSIGN(end, ExpiryOf(longer.certificate_pem));
    EXPECT_EQ(end, kNow + absl::Hours(48));
  }
  EXPECT_THAT(Issue(ca, {.worker = "w1"}, kNow + absl::Hours(49), absl::Hours(1)),
              StatusIs(absl::StatusCode::kFailedPrecondition, "has ended"));
}

// Names stand in a configuration text: nothing in them may add another name.
TEST(Pki, NamesThatWouldSmuggleOthersAreRefused) {
  LL_ASSERT_OK_AND_ASSIGN(const KeyPair ca, MakeAuthority("test", kNow, absl::Hours(48)));
  for (const std::string name : {"a,URI:ll://user/root", "a b", "a\nb", "a/b", "../a", "ä"}) {
    EXPECT_THAT(Issue(ca, {.worker = name}, kNow, absl::Hours(1)),
                StatusIs(absl::StatusCode::kInvalidArgument, "worker"))
        << name;
    EXPECT_THAT(Issue(ca, {.user = name}, kNow, absl::Hours(1)),
                StatusIs(absl::StatusCode::kInvalidArgument, "user"))
        << name;
    EXPECT_THAT(Issue(ca, {.hosts = {name}}, kNow, absl::Hours(1)),
                StatusIs(absl::StatusCode::kInvalidArgument, "server"))
        << name;
  }
  EXPECT_THAT(Issue(ca, {}, kNow, absl::Hours(1)),
              StatusIs(absl::StatusCode::kInvalidArgument, "server"));
}

TEST(Pki, ARequestGivesItsKeyAndNothingElse) {
  LL_ASSERT_OK_AND_ASSIGN(const KeyPair ca, MakeAuthority("test", kNow, absl::Hours(48)));
  LL_ASSERT_OK_AND_ASSIGN(const KeyPair csr, MakeCsr("whatever-it-says"));
  LL_ASSERT_OK_AND_ASSIGN(const std::string signed_pem,
                          SignCsr(ca, csr.certificate_pem, {.worker = "w7"}, kNow, absl::Hours(1)));
  const TempDir dir;
  const std::string cert = dir.path() + "/c", key = dir.path() + "/k";
  LL_ASSERT_OK(WriteFileAtomic(cert, signed_pem));
  LL_ASSERT_OK(WriteFileAtomic(key, csr.key_pem, 0600));
  LL_EXPECT_OK(CheckCertificateFiles(cert, key));
  LL_EXPECT_OK(CheckAuthorityFile(cert, "tls-client-ca"));

  EXPECT_THAT(SignCsr(ca, "no request", {.worker = "w7"}, kNow, absl::Hours(1)),
              StatusIs(absl::StatusCode::kInvalidArgument, "csr_pem"));
  // A request whose bytes were changed is not signed by its key any more.
  std::string changed = csr.certificate_pem;
  changed[changed.size() / 2] = changed[changed.size() / 2] == 'A' ? 'B' : 'A';
  EXPECT_THAT(SignCsr(ca, changed, {.worker = "w7"}, kNow, absl::Hours(1)),
              StatusIs(absl::StatusCode::kInvalidArgument, "csr_pem"));

  ASSERT_EQ(chmod(key.c_str(), 0644), 0);
  EXPECT_THAT(CheckCertificateFiles(cert, key),
              StatusIs(absl::StatusCode::kFailedPrecondition, "everybody"));
  ASSERT_EQ(chmod(key.c_str(), 0640), 0);  // a group of its own may read it
  LL_EXPECT_OK(CheckCertificateFiles(cert, key));
  LL_ASSERT_OK(WriteFileAtomic(key, ca.key_pem, 0600));
  EXPECT_THAT(CheckCertificateFiles(cert, key),
              StatusIs(absl::StatusCode::kInvalidArgument, "the key of"));
  LL_ASSERT_OK(WriteFileAtomic(key, "no key", 0600));
  EXPECT_THAT(CheckCertificateFiles(cert, key),
              StatusIs(absl::StatusCode::kInvalidArgument, "a private key"));
  EXPECT_THAT(CheckCertificateFiles(key, key),
              StatusIs(absl::StatusCode::kInvalidArgument, "a certificate"));
  EXPECT_THAT(CheckAuthorityFile(key, "tls-ca"),
              StatusIs(absl::StatusCode::kInvalidArgument, "authorities"));
  // The bundle's longest counts; a file that is not given has not ended.
  LL_EXPECT_OK(CheckNotEnded(cert, "tls-cert", kNow + absl::Minutes(59), "renew it"));
  const absl::Status ended = CheckNotEnded(cert, "tls-cert", kNow + absl::Hours(2), "renew it");
  EXPECT_THAT(ended, StatusIs(absl::StatusCode::kFailedPrecondition, "which ended"));
  EXPECT_EQ(ErrorField(ended), "tls-cert");
  EXPECT_EQ(ErrorHint(ended), "renew it");
  LL_ASSERT_OK(WriteFileAtomic(cert, signed_pem + ca.certificate_pem));
  LL_EXPECT_OK(CheckNotEnded(cert, "tls-ca", kNow + absl::Hours(2), ""));
  LL_EXPECT_OK(CheckNotEnded("", "tls-ca", kNow + absl::Hours(2), ""));
  const absl::Status missing = CheckCertificateFiles(dir.path() + "/none", key);
  EXPECT_EQ(ErrorField(missing), "tls-cert");
}

}  // namespace
}  // namespace ll
