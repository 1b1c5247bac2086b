// Who calls, and whether they may.
//
// Every method of every service stands in one table with the scope it needs; a method that is not
// in the table is refused, and a test compares the table with the services. Tokens are compared by
// hash and in constant time.
//
//   users            bearer token from the tokens file, or (only where the coordinator listens on
//   loopback)
//                    the random token in DATA_DIR/token
//   agents           with a client CA: a certificate of that CA whose common or alternative name is
//   the worker's name;
//                    otherwise a token with the scope `worker`
#pragma once

#include <grpcpp/security/auth_context.h>
#include <grpcpp/support/string_ref.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"

namespace ll {

enum class Scope { kRead, kSubmit, kCancel, kAdmin, kWorker };

// The scope that "/ll.v1.Jobs/Submit" needs; NotFound for a method that is not in the table.
absl::StatusOr<Scope> RequiredScope(const std::string& method);

struct Caller {
  std::string user;
  std::string tenant;
  bool admin = false;  // has the scope `admin`
  // Names of a verified client certificate (common name, alternative names); empty without one.
  std::vector<std::string> certificate_names;
};

struct AuthOptions {
  std::string tokens_file;  // empty: none
  std::string local_token;  // accepted with every scope; empty: none
  std::string local_user;   // its owner
  bool worker_certificates = false;
  double max_calls_per_second = 20'000;  // of one user
};

// Thread-safe.
class Authenticator {
 public:
  // Errors: the tokens file cannot be read or a line of it is wrong (field "tokens", with the
  // line's number).
  static absl::StatusOr<std::unique_ptr<Authenticator>> Create(AuthOptions options, Clock& clock);

  using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;
  // Unauthenticated: no token, an unknown or an expired one; PermissionDenied: lacks the scope;
  // ResourceExhausted: too many calls.
  absl::StatusOr<Caller> Check(const std::string& method, const Metadata& metadata,
                               const grpc::AuthContext* context);

 private:
  struct Token {
    std::string sha256;
    Caller caller;
    std::vector<Scope> scopes;
    absl::Time expires;
  };
  struct Bucket {
    double calls = 0;
    absl::Duration filled;
  };

  Authenticator(AuthOptions options, Clock& clock) : options_(std::move(options)), clock_(clock) {}
  static absl::StatusOr<std::vector<Token>> ReadTokens(const std::string& path);
  void ReloadWhenChanged() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status TakeCall(const std::string& user) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const AuthOptions options_;
  Clock& clock_;
  absl::Mutex mu_;
  std::vector<Token> tokens_ ABSL_GUARDED_BY(mu_);
  std::string file_stamp_ ABSL_GUARDED_BY(mu_);
  absl::Duration next_look_ ABSL_GUARDED_BY(mu_) = absl::ZeroDuration();
  absl::flat_hash_map<std::string, Bucket> buckets_ ABSL_GUARDED_BY(mu_);
};

// Reads DATA_DIR/token, or makes it (0600, 256 random bits). Error where the file is readable by
// others.
absl::StatusOr<std::string> LocalToken(const std::string& data_dir);

}  // namespace ll
