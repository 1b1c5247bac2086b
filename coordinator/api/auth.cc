#include "coordinator/api/auth.h"

#include <grpc/grpc_security_constants.h>
#include <openssl/crypto.h>
#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "proto/admin.pb.h"
#include "proto/auth.pb.h"
#include "proto/jobs.pb.h"
#include "proto/schedules.pb.h"
#include "proto/workers.pb.h"
#include "rpc/pki.h"
#include "rpc/secret_file.h"

namespace ll {
namespace {

constexpr char kReflection[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
constexpr double kJoinsPerSecond = 5;  // of all: a join token cannot be guessed, nor tried often
constexpr size_t kMaxMetadataBytes = 32 << 10;
constexpr size_t kMaxBuckets = 100'000;

using ScopeMap = absl::flat_hash_map<std::string, Scope>;

absl::StatusOr<Scope> ScopeFromProto(v1::Scope scope) {
  switch (scope) {
    case v1::SCOPE_READ:
      return Scope::kRead;
    case v1::SCOPE_SUBMIT:
      return Scope::kSubmit;
    case v1::SCOPE_CANCEL:
      return Scope::kCancel;
    case v1::SCOPE_ADMIN:
      return Scope::kAdmin;
    case v1::SCOPE_WORKER:
      return Scope::kWorker;
    case v1::SCOPE_JOIN:
      return Scope::kJoin;
    default:
      return absl::NotFoundError("no scope");
  }
}

ScopeMap MakeScopeTable() {
  ScopeMap table;
  const google::protobuf::FileDescriptor* files[] = {
      v1::GetRequest::descriptor()->file(), v1::AgentMessage::descriptor()->file(),
      v1::VersionRequest::descriptor()->file(), v1::Schedule::descriptor()->file()};
  for (const auto* file : files) {
    for (int s = 0; s < file->service_count(); ++s) {
      const auto* service = file->service(s);
      for (int m = 0; m < service->method_count(); ++m) {
        const auto* method = service->method(m);
        const auto scope = ScopeFromProto(method->options().GetExtension(v1::required_scope));
        if (scope.ok())
          table[absl::StrCat("/", service->full_name(), "/", method->name())] = *scope;
      }
    }
  }
  table[kReflection] = Scope::kRead;  // the library's own
  return table;
}

const ScopeMap& ScopeTable() {
  static const auto* table = new ScopeMap(MakeScopeTable());
  return *table;
}

// As the tokens file spells it.
absl::string_view NameOf(Scope scope) {
  switch (scope) {
    case Scope::kRead:
      return "read";
    case Scope::kSubmit:
      return "submit";
    case Scope::kCancel:
      return "cancel";
    case Scope::kAdmin:
      return "admin";
    case Scope::kWorker:
      return "worker";
    case Scope::kJoin:
      break;
  }
  return "join";
}

bool SameHash(const std::string& a, const std::string& b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string BearerToken(const Authenticator::Metadata& metadata) {
  auto it = metadata.find("authorization");
  if (it == metadata.end()) return "";
  absl::string_view value(it->second.data(), it->second.size());
  return absl::ConsumePrefix(&value, "Bearer ") ? std::string(value) : "";
}

// gRPC 1.51 counts the bytes of each frame, not of all.
absl::Status CheckMetadata(const Authenticator::Metadata& metadata) {
  size_t bytes = 0;
  for (const auto& [name, value] : metadata) bytes += name.size() + value.size() + 32;
  if (bytes <= kMaxMetadataBytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("more than ", kMaxMetadataBytes, " bytes of metadata"));
}

// What a verified certificate says of its owner; all empty without one.
struct Peer {
  bool verified = false;
  std::string worker, user;
};

// A certificate that names more than one of ours names nobody: it was not made here.
Peer PeerOf(const grpc::AuthContext* context) {
  Peer peer;
  if (context == nullptr || !context->IsPeerAuthenticated()) return peer;
  peer.verified = true;
  int names = 0;
  for (const grpc::string_ref& value : context->FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME)) {
    const absl::string_view uri(value.data(), value.size());
    if (!absl::StartsWith(uri, "ll://")) continue;
    ++names;
    absl::string_view name = uri;
    const bool is_worker = absl::ConsumePrefix(&name, kWorkerUri);
    const bool is_user = !is_worker && absl::ConsumePrefix(&name, kUserUri);
    if (!IsIdentityName(name)) continue;
    if (is_worker) peer.worker = std::string(name);
    if (is_user) peer.user = std::string(name);
  }
  if (names > 1) peer.worker = peer.user = "";
  return peer;
}

absl::StatusOr<Caller> WorkerOf(const Peer& peer) {
  if (!peer.verified) {
    return FieldStatus(
        absl::StatusCode::kUnauthenticated, "tls-cert", "workers need a client certificate",
        "give ll-worker --tls-cert and --tls-key signed by the coordinator's client CA");
  }
  if (peer.worker.empty()) {
    return FieldStatus(absl::StatusCode::kPermissionDenied, "tls-cert",
                       "the certificate is no worker's: it does not name ll://worker/NAME",
                       "make one with ll-coordinator pki issue --worker NAME, or ll-worker join");
  }
  return Caller{.user = absl::StrCat("worker ", peer.worker), .worker = peer.worker};
}

constexpr char kTokenHint[] = "llctl login stores one; or set LLCTL_TOKEN or give --token-file";

absl::StatusOr<std::unique_ptr<JwtKeys>> ReadKeys(const std::string& path) {
  LL_RETURN_IF_ERROR(CheckNotForAllToWrite(path, "oidc-keys"));
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  LL_ASSIGN_OR_RETURN(JwtKeys keys, JwtKeys::Parse(text));
  return std::make_unique<JwtKeys>(std::move(keys));
}

}  // namespace

absl::StatusOr<Scope> RequiredScope(const std::string& method) {
  auto it = ScopeTable().find(method);
  if (it == ScopeTable().end())
    return absl::NotFoundError(absl::StrCat("no scope is set for ", method));
  return it->second;
}

bool ChangesSomething(const std::string& method) {
  const auto scope = RequiredScope(method);
  return scope.ok() && *scope != Scope::kRead && *scope != Scope::kWorker;
}

bool IsOpenToAll(const std::string& method) {
  return method == "/grpc.health.v1.Health/Check" || method == "/grpc.health.v1.Health/Watch";
}

absl::StatusOr<std::unique_ptr<Authenticator>> Authenticator::Create(AuthOptions options,
                                                                     Clock& clock,
                                                                     Tenants* tenants) {
  auto out = std::unique_ptr<Authenticator>(new Authenticator(std::move(options), clock, tenants));
  const AuthOptions& o = out->options_;
  if (!o.local_token.empty()) out->local_sha256_ = Sha256Hex(o.local_token);
  absl::MutexLock lock(&out->mu_);
  if (!o.tokens_file.empty()) {
    LL_ASSIGN_OR_RETURN(out->tokens_, ReadTokens(o.tokens_file));
  }
  if (!o.oidc.keys_file.empty()) {
    LL_ASSIGN_OR_RETURN(out->keys_, ReadKeys(o.oidc.keys_file));
  }
  return out;
}

// Whether something was read.
bool Authenticator::ReloadWhenChanged(bool at_once) {
  const bool new_tokens = tokens_file_.Changed(at_once), new_keys = keys_file_.Changed(at_once);
  if (new_tokens) {
    auto tokens = ReadTokens(options_.tokens_file);
    if (tokens.ok()) {
      tokens_ = *std::move(tokens);
      LL_LOG(kInfo) << "read " << tokens_.size() << " tokens from " << options_.tokens_file;
    } else {
      LL_LOG(kError) << "the tokens file is wrong, the former tokens stay: "
                     << tokens.status().message();
    }
  }
  if (new_keys) {
    auto keys = ReadKeys(options_.oidc.keys_file);
    if (keys.ok()) {
      keys_ = *std::move(keys);
      LL_LOG(kInfo) << "read " << keys_->size() << " keys from " << options_.oidc.keys_file;
    } else {
      LL_LOG(kError) << "the identity provider's keys are wrong, the former ones stay: "
                     << keys.status().message();
    }
  }
  return new_tokens || new_keys;
}

absl::Status Authenticator::TakeCall(const std::string& who, double per_second) {
  if (buckets_.size() > kMaxBuckets) buckets_.clear();  // an identity provider's users are many
  Bucket& bucket = buckets_[who];
  const absl::Duration now = clock_.Steady();
  bucket.calls =
      std::max(0.0, bucket.calls - absl::ToDoubleSeconds(now - bucket.filled) * per_second);
  bucket.filled = now;
  if (bucket.calls + 1 > std::max(per_second, 1.0)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", per_second, " calls a second; try again"));
  }
  bucket.calls += 1;
  return absl::OkStatus();
}

absl::StatusOr<Authenticator::Holder> Authenticator::HolderOf(const std::string& token) {
  if (keys_ != nullptr && LooksLikeJwt(token)) {
    LL_ASSIGN_OR_RETURN(JwtCaller caller, keys_->Verify(token, options_.oidc, clock_.Now()));
    const bool admin = caller.scopes.count("admin") > 0;
    return Holder{
        {.user = std::move(caller.user), .tenant = std::move(caller.tenant), .admin = admin},
        std::move(caller.scopes)};
  }
  const std::string hash = Sha256Hex(token);
  // Every entry is compared, so that the time does not tell which one was near.
  const TokenEntry* found = nullptr;
  for (const TokenEntry& known : tokens_) {
    if (SameHash(known.sha256, hash)) found = &known;
  }
  if (!local_sha256_.empty() && SameHash(local_sha256_, hash)) {
    return Holder{{.user = options_.local_user, .admin = true},
                  {std::begin(kTokenScopes), std::end(kTokenScopes)}};
  }
  if (found == nullptr) {
    return FieldStatus(absl::StatusCode::kUnauthenticated, "token", "the token is not known here",
                       kTokenHint);
  }
  if (clock_.Now() >= found->expires) {
    return FieldStatus(absl::StatusCode::kUnauthenticated, "token", "the token has expired",
                       "ask for a new one");
  }
  return Holder{
      {.user = found->user, .tenant = found->tenant, .admin = found->scopes.count("admin") > 0},
      found->scopes};
}

absl::StatusOr<Caller> Authenticator::Check(const std::string& method, const Metadata& metadata,
                                            const grpc::AuthContext* context) {
  LL_RETURN_IF_ERROR(CheckMetadata(metadata));
  const auto scope = RequiredScope(method);
  if (!scope.ok()) return absl::PermissionDeniedError(scope.status().message());
  const Peer peer = PeerOf(context);
  if (*scope == Scope::kWorker && options_.worker_certificates) return WorkerOf(peer);
  if (*scope == Scope::kJoin) {
    absl::MutexLock lock(&mu_);
    LL_RETURN_IF_ERROR(TakeCall("\njoin", kJoinsPerSecond));
    return Caller{};
  }
  if (!peer.worker.empty()) {
    return FieldStatus(absl::StatusCode::kPermissionDenied, "tls-cert",
                       "a worker's certificate does not speak for users",
                       "come with a user's certificate, or with none, and a token");
  }

  const std::string token = BearerToken(metadata);
  if (token.empty()) {
    return FieldStatus(absl::StatusCode::kUnauthenticated, "token",
                       "this coordinator wants a token", kTokenHint);
  }
  Holder holder;
  {
    absl::MutexLock lock(&mu_);
    ReloadWhenChanged();
    auto found = HolderOf(token);
    // Somebody comes with a token that was made within this second.
    if (!found.ok() && ReloadWhenChanged(/*at_once=*/true)) found = HolderOf(token);
    LL_ASSIGN_OR_RETURN(holder, std::move(found));
    const std::string name(NameOf(*scope));
    if (holder.scopes.count(name) == 0 && holder.scopes.count("admin") == 0) {
      return FieldStatus(absl::StatusCode::kPermissionDenied, "token",
                         absl::StrCat("the token of ", holder.caller.user, " does not allow ",
                                      method, ": expected one with the scope ", name, ", found ",
                                      absl::StrJoin(holder.scopes, ", ")),
                         "an administrator makes another: llctl token create --scopes");
    }
    if (!peer.user.empty() && peer.user != holder.caller.user) {
      return FieldStatus(absl::StatusCode::kPermissionDenied, "tls-cert",
                         absl::StrCat("the certificate is ", peer.user, "'s, the token is not"),
                         "use a token of the certificate's owner");
    }
    LL_RETURN_IF_ERROR(TakeCall(holder.caller.user, options_.max_calls_per_second));
  }
  if (tenants_ == nullptr) return holder.caller;
  const double of_tenant = tenants_->Of(holder.caller.tenant).calls_per_second;
  if (of_tenant > 0) {
    absl::MutexLock lock(&mu_);
    LL_RETURN_IF_ERROR(TakeCall(absl::StrCat("\ntenant ", holder.caller.tenant), of_tenant));
  }
  return holder.caller;
}

absl::StatusOr<std::string> LocalToken(const std::string& data_dir) {
  const std::string path = absl::StrCat(data_dir, "/token");
  struct stat st;
  if (stat(path.c_str(), &st) == 0) {
    if ((st.st_mode & 077) != 0) {
      return FieldStatus(absl::StatusCode::kFailedPrecondition, path, "others may read it",
                         absl::StrCat("chmod 600 ", path, " or delete it to get a new token"));
    }
    LL_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
    const std::string token(absl::StripAsciiWhitespace(text));
    if (token.size() >= 32) return token;
  }
  const std::string token = RandomHex(SystemRandom(), 32);
  LL_RETURN_IF_ERROR(WriteFileAtomic(path, token + "\n", 0600));
  return token;
}

}  // namespace ll
