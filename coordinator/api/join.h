// Certificates for new workers: a join token, made by an administrator on the coordinator's host,
// is exchanged for a certificate whose key the worker made itself and keeps.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "proto/workers.pb.h"

namespace ll {

// A folder of `ll-coordinator pki`.
inline constexpr char kAuthorityCertificate[] = "ca.crt";
inline constexpr char kAuthorityKey[] = "ca.key";

// Adds a token to DIR/join-tokens.jsonl (its hash, 0600) and returns it. `worker` empty: for any
// name that no worker has yet.
absl::StatusOr<std::string> MakeJoinToken(const std::string& dir, const std::string& worker,
                                          int uses, absl::Time expires, Random& random);

// Thread-safe.
class JoinDesk {
 public:
  // `dir` empty: signs nothing.
  explicit JoinDesk(std::string dir) : dir_(std::move(dir)) {}

  // Uses the token up by one and signs. `known`: the cluster has a worker of that name, which only
  // a token for that name may replace. Errors: Unauthenticated (no such token, used up, too old,
  // for another name: all the same words), InvalidArgument (name, csr_pem; the token is kept),
  // FailedPrecondition (signs nothing).
  absl::StatusOr<v1::JoinResponse> Sign(const v1::JoinRequest& request, bool known, absl::Time now)
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const std::string dir_;
  absl::Mutex mu_;  // one at a time: it is rare
};

}  // namespace ll
