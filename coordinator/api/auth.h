// Who calls, and whether they may.
//
// What each method needs stands beside it in proto/ (proto/auth.proto); the table is made of those
// options, and a method that is not in it is refused. Tokens are compared by hash and in constant
// time.
//
//   users   a bearer token: of the tokens file, of an identity provider (jwt.h), or (only where the
//   coordinator listens on
//           loopback) the random one in DATA_DIR/token. With a certificate "ll://user/NAME" the
//           token must be NAME's.
//   agents  with a client CA: a certificate for "ll://worker/NAME"; otherwise a token with the
//   scope `worker`.
//
// A worker's certificate never speaks for a user, nor a user's for a worker.
#pragma once

#include <grpcpp/security/auth_context.h>
#include <grpcpp/support/string_ref.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "coordinator/api/jwt.h"
#include "coordinator/api/tenants.h"
#include "coordinator/api/watched_file.h"
#include "coordinator/core/access.h"
#include "rpc/token_file.h"

namespace ll {

enum class Scope { kRead, kSubmit, kCancel, kAdmin, kWorker, kJoin };

// The scope that "/ll.v1.Jobs/Submit" needs; NotFound for a method that states none.
absl::StatusOr<Scope> RequiredScope(const std::string& method);
// Whether calls of the method change something: what users may only with another scope than `read`.
// Sessions of agents do not count.
bool ChangesSomething(const std::string& method);
// What answers without asking who calls: health, which says SERVING or NOT_SERVING and nothing
// else.
bool IsOpenToAll(const std::string& method);

struct Caller {
  std::string user;
  std::string tenant;  // empty: none
  bool admin = false;  // has the scope `admin`
  std::string worker;  // name of a verified worker's certificate; empty without one
  Access access() const { return {tenant, admin}; }
};

struct AuthOptions {
  std::string tokens_file;  // empty: none
  std::string local_token;  // accepted with every scope; empty: none
  std::string local_user;   // its owner
  bool worker_certificates = false;
  double max_calls_per_second = 20'000;  // of one user
  OidcOptions oidc;
};

// Thread-safe.
class Authenticator {
 public:
  // Errors: the tokens file cannot be read or a line of it is wrong (field "tokens", with the
  // line's number); no keys of the identity provider (field "oidc-keys"). Both files are read again
  // when they change. `tenants` outlives it; null: no limits.
  static absl::StatusOr<std::unique_ptr<Authenticator>> Create(AuthOptions options, Clock& clock,
                                                               Tenants* tenants = nullptr);

  using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;
  // Unauthenticated: no token, an unknown or an expired one; PermissionDenied: lacks the scope, or
  // a certificate of another kind; ResourceExhausted: too many calls.
  absl::StatusOr<Caller> Check(const std::string& method, const Metadata& metadata,
                               const grpc::AuthContext* context);

 private:
  struct Holder {  // of a token that is good now
    Caller caller;
    std::set<std::string> scopes;
  };
  struct Bucket {
    double calls = 0;
    absl::Duration filled;
  };

  Authenticator(AuthOptions options, Clock& clock, Tenants* tenants)
      : options_(std::move(options)),
        clock_(clock),
        tenants_(tenants),
        tokens_file_(options_.tokens_file, clock),
        keys_file_(options_.oidc.keys_file, clock) {}
  bool ReloadWhenChanged(bool at_once = false) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Holder> HolderOf(const std::string& token) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status TakeCall(const std::string& who, double per_second)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const AuthOptions options_;
  Clock& clock_;
  Tenants* const tenants_;
  std::string local_sha256_;  // of options_.local_token; empty: none
  absl::Mutex mu_;
  WatchedFile tokens_file_ ABSL_GUARDED_BY(mu_);
  WatchedFile keys_file_ ABSL_GUARDED_BY(mu_);
  std::vector<TokenEntry> tokens_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<JwtKeys> keys_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, Bucket> buckets_ ABSL_GUARDED_BY(mu_);
};

// Reads DATA_DIR/token, or makes it (0600, 256 random bits). Error where the file is readable by
// others.
absl::StatusOr<std::string> LocalToken(const std::string& data_dir);

}  // namespace ll
