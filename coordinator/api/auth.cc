#include "coordinator/api/auth.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

const std::map<std::string, Scope>& ScopeTable() {
  static const auto* table = new std::map<std::string, Scope>{
      {"/ll.v1.Jobs/Submit", Scope::kSubmit},
      {"/ll.v1.Jobs/SubmitAll", Scope::kSubmit},
      {"/ll.v1.Jobs/Get", Scope::kRead},
      {"/ll.v1.Jobs/List", Scope::kRead},
      {"/ll.v1.Jobs/Watch", Scope::kRead},
      {"/ll.v1.Jobs/Logs", Scope::kRead},
      {"/ll.v1.Jobs/Cancel", Scope::kCancel},
      {"/ll.v1.Jobs/Pause", Scope::kCancel},
      {"/ll.v1.Jobs/Resume", Scope::kSubmit},
      {"/ll.v1.Jobs/Why", Scope::kRead},
      {"/ll.v1.Jobs/Checkpoints", Scope::kRead},
      {"/ll.v1.Jobs/Say", Scope::kSubmit},
      {"/ll.v1.Workers/Session", Scope::kWorker},
      {"/ll.v1.Admin/ListWorkers", Scope::kRead},
      {"/ll.v1.Admin/CordonWorker", Scope::kAdmin},
      {"/ll.v1.Admin/SetQueue", Scope::kAdmin},
      {"/ll.v1.Admin/ListQueues", Scope::kRead},
      {"/ll.v1.Admin/AddModel", Scope::kAdmin},
      {"/ll.v1.Admin/ListModels", Scope::kRead},
      {"/ll.v1.Admin/AddData", Scope::kAdmin},
      {"/ll.v1.Admin/ListData", Scope::kRead},
      {"/ll.v1.Admin/Version", Scope::kRead},
      {"/ll.v1.Schedules/Create", Scope::kSubmit},
      {"/ll.v1.Schedules/List", Scope::kRead},
      {"/ll.v1.Schedules/Get", Scope::kRead},
      {"/ll.v1.Schedules/Delete", Scope::kSubmit},
      {"/ll.v1.Schedules/Run", Scope::kSubmit},
      {"/ll.v1.Schedules/Pause", Scope::kSubmit},
      {"/ll.v1.Schedules/Resume", Scope::kSubmit},
      {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Scope::kRead},
  };
  return *table;
}

const std::map<std::string, Scope>& ScopeNames() {
  static const auto* names = new std::map<std::string, Scope>{{"read", Scope::kRead},
                                                              {"submit", Scope::kSubmit},
                                                              {"cancel", Scope::kCancel},
                                                              {"admin", Scope::kAdmin},
                                                              {"worker", Scope::kWorker}};
  return *names;
}

// Stays the same as long as the file does.
std::string FileStamp(const std::string& path) {
  struct stat st;
  if (stat(path.c_str(), &st) != 0) return "missing";
  return absl::StrCat(st.st_ino, ":", st.st_size, ":", st.st_mtim.tv_sec, ":", st.st_mtim.tv_nsec);
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

std::vector<std::string> CertificateNames(const grpc::AuthContext* context) {
  std::vector<std::string> names;
  if (context == nullptr || !context->IsPeerAuthenticated()) return names;
  for (const char* property : {"x509_common_name", "x509_subject_alternative_name"}) {
    for (const grpc::string_ref& value : context->FindPropertyValues(property)) {
      names.emplace_back(value.data(), value.size());
    }
  }
  return names;
}

constexpr absl::Duration kLookAgain = absl::Seconds(1);
constexpr char kTokenHint[] = "set LLCTL_TOKEN or give --token-file";

}  // namespace

absl::StatusOr<Scope> RequiredScope(const std::string& method) {
  auto it = ScopeTable().find(method);
  if (it == ScopeTable().end())
    return absl::NotFoundError(absl::StrCat("no scope is set for ", method));
  return it->second;
}

absl::StatusOr<std::unique_ptr<Authenticator>> Authenticator::Create(AuthOptions options,
                                                                     Clock& clock) {
  auto out = std::unique_ptr<Authenticator>(new Authenticator(std::move(options), clock));
  if (out->options_.tokens_file.empty()) return out;
  absl::MutexLock lock(&out->mu_);
  out->file_stamp_ = FileStamp(out->options_.tokens_file);
  LL_ASSIGN_OR_RETURN(out->tokens_, ReadTokens(out->options_.tokens_file));
  return out;
}

absl::StatusOr<std::vector<Authenticator::Token>> Authenticator::ReadTokens(
    const std::string& path) {
  LL_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  std::vector<Token> tokens;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    const auto bad = [&](absl::string_view expected) {
      return MakeFieldError(
          {"tokens", expected, absl::StrCat("something else in line ", number, " of ", path)});
    };
    const nlohmann::json json = nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
    if (!json.is_object()) return bad("a JSON object");
    const auto text_of = [&json](const char* key) {
      auto it = json.find(key);
      return it != json.end() && it->is_string() ? it->get<std::string>() : std::string();
    };
    Token token;
    token.sha256 = text_of("token_sha256");
    if (token.sha256.size() != 64 ||
        token.sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
      return bad("token_sha256 of 64 lower-case hexadecimal digits");
    }
    token.caller.user = text_of("user");
    if (token.caller.user.empty()) return bad("a user");
    token.caller.tenant = text_of("tenant");
    const auto scopes = json.find("scopes");
    if (scopes == json.end() || !scopes->is_array()) return bad("scopes, a list");
    for (const auto& scope : *scopes) {
      auto known =
          scope.is_string() ? ScopeNames().find(scope.get<std::string>()) : ScopeNames().end();
      if (known == ScopeNames().end())
        return bad("scopes out of read, submit, cancel, admin, worker");
      token.scopes.push_back(known->second);
      if (known->second == Scope::kAdmin) token.caller.admin = true;
    }
    std::string error;
    token.expires = absl::InfiniteFuture();
    if (json.contains("expires") &&
        !absl::ParseTime(absl::RFC3339_full, text_of("expires"), &token.expires, &error)) {
      return bad("expires as RFC 3339 time");
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void Authenticator::ReloadWhenChanged() {
  const absl::Duration now = clock_.Steady();
  if (options_.tokens_file.empty() || now < next_look_) return;
  next_look_ = now + kLookAgain;
  const std::string stamp = FileStamp(options_.tokens_file);
  if (stamp == file_stamp_) return;
  file_stamp_ = stamp;
  auto tokens = ReadTokens(options_.tokens_file);
  if (tokens.ok()) {
    tokens_ = *std::move(tokens);
    LL_LOG(kInfo) << "read " << tokens_.size() << " tokens from " << options_.tokens_file;
  } else {
    LL_LOG(kError) << "the tokens file is wrong, the former tokens stay: "
                   << tokens.status().message();
  }
}

absl::Status Authenticator::TakeCall(const std::string& user) {
  Bucket& bucket = buckets_[user];
  const absl::Duration now = clock_.Steady();
  const double limit = options_.max_calls_per_second;
  bucket.calls = std::max(0.0, bucket.calls - absl::ToDoubleSeconds(now - bucket.filled) * limit);
  bucket.filled = now;
  if (bucket.calls + 1 > limit) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", limit, " calls a second; try again"));
  }
  bucket.calls += 1;
  return absl::OkStatus();
}

absl::StatusOr<Caller> Authenticator::Check(const std::string& method, const Metadata& metadata,
                                            const grpc::AuthContext* context) {
  const auto scope = RequiredScope(method);
  if (!scope.ok()) return absl::PermissionDeniedError(scope.status().message());
  const std::vector<std::string> names = CertificateNames(context);
  if (*scope == Scope::kWorker && options_.worker_certificates) {
    if (names.empty()) {
      return FieldStatus(
          absl::StatusCode::kUnauthenticated, "tls-cert", "workers need a client certificate",
          "give ll-worker --tls-cert and --tls-key signed by the coordinator's client CA");
    }
    return Caller{.user = names[0], .certificate_names = names};
  }

  const std::string token = BearerToken(metadata);
  if (token.empty()) {
    return FieldStatus(absl::StatusCode::kUnauthenticated, "token",
                       "this coordinator wants a token", kTokenHint);
  }
  const std::string hash = Sha256Hex(token);
  absl::MutexLock lock(&mu_);
  ReloadWhenChanged();
  // Every entry is compared, so that the time does not tell which one was near.
  const Token* found = nullptr;
  for (const Token& known : tokens_) {
    if (SameHash(known.sha256, hash)) found = &known;
  }
  const bool local =
      !options_.local_token.empty() && SameHash(Sha256Hex(options_.local_token), hash);
  if (found == nullptr && !local) {
    return FieldStatus(absl::StatusCode::kUnauthenticated, "token", "the token is not known here",
                       kTokenHint);
  }
  if (found != nullptr && clock_.Now() >= found->expires) {
    return FieldStatus(absl::StatusCode::kUnauthenticated, "token", "the token has expired",
                       "ask for a new one");
  }
  const auto has = [&](Scope s) {
    return std::find(found->scopes.begin(), found->scopes.end(), s) != found->scopes.end();
  };
  if (found != nullptr && !has(*scope) && !has(Scope::kAdmin)) {
    return FieldStatus(
        absl::StatusCode::kPermissionDenied, "token",
        absl::StrCat("the token of ", found->caller.user, " does not allow ", method));
  }
  Caller caller =
      found != nullptr ? found->caller : Caller{.user = options_.local_user, .admin = true};
  LL_RETURN_IF_ERROR(TakeCall(caller.user));
  return caller;
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
