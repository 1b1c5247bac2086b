// Certificates of a cluster: an authority of its own, and what it signs for the coordinator, for
// workers and for users. Keys are EC P-256. Who a certificate is for stands in its alternative
// names alone: "ll://worker/NAME", "ll://user/NAME", or the DNS names and addresses of a server;
// the common name is for people. Thread-safe functions.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ll {

inline constexpr absl::string_view kWorkerUri = "ll://worker/";
inline constexpr absl::string_view kUserUri = "ll://user/";

// 1 to 64 letters, digits, '.', '_' or '-'.
bool IsIdentityName(absl::string_view name);

struct KeyPair {
  std::string certificate_pem;  // MakeCsr: the request
  std::string key_pem;          // PKCS #8; a secret
};

// Who a certificate is for; exactly one of the three is set.
struct CertificateSubject {
  std::string worker;
  std::string user;
  std::vector<std::string> hosts;  // DNS names and addresses of a server
};

// A certificate authority that signs end entities only, valid from now on.
absl::StatusOr<KeyPair> MakeAuthority(absl::string_view common_name, absl::Time now,
                                      absl::Duration validity);

// A key and a certificate of `authority` for it. Errors (InvalidArgument, field worker, user or
// server): a name that cannot stand in a certificate. The end is never later than the authority's.
absl::StatusOr<KeyPair> Issue(const KeyPair& authority, const CertificateSubject& subject,
                              absl::Time now, absl::Duration validity);

// For a key that stays where it is used: the request there, the signature by the authority. Of the
// request only the public key counts; InvalidArgument (field "csr_pem") where it is no request, is
// not signed by its own key, or holds another kind of key than EC P-256.
absl::StatusOr<KeyPair> MakeCsr(absl::string_view common_name);
absl::StatusOr<std::string> SignCsr(const KeyPair& authority, absl::string_view csr_pem,
                                    const CertificateSubject& subject, absl::Time now,
                                    absl::Duration validity);

// What a daemon is started with: readable PEM, a certificate that belongs to the key, a key that
// not everybody can read. Errors name `cert_flag` or `key_flag` and the file.
absl::Status CheckCertificateFiles(const std::string& cert_file, const std::string& key_file,
                                   absl::string_view cert_flag = "tls-cert",
                                   absl::string_view key_flag = "tls-key");
// At least one certificate in a PEM file of authorities.
absl::Status CheckAuthorityFile(const std::string& file, absl::string_view flag);

// For a daemon that starts at `now`: FailedPrecondition where `file`'s certificate has ended, which
// says when, and `fix` as the hint. Of several in the file (authorities) one that has not suffices.
// OK where `file` is empty. A daemon that runs goes on with what it has: nothing calls this then.
absl::Status CheckNotEnded(const std::string& file, absl::string_view flag, absl::Time now,
                           absl::string_view fix);

// The moment after which the certificate (the first of the PEM) is void. InvalidArgument: no
// certificate.
absl::StatusOr<absl::Time> ExpiryOf(absl::string_view certificate_pem);

}  // namespace ll
