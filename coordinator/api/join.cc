#include "coordinator/api/join.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "rpc/pki.h"
#include "rpc/token_file.h"

namespace ll {
namespace {

constexpr absl::Duration kCertificateValidity = absl::Hours(24 * 365);

struct JoinToken {
  std::string sha256, worker;
  int uses = 0;
  absl::Time expires;
};

std::string TokensPath(const std::string& dir) { return absl::StrCat(dir, "/join-tokens.jsonl"); }

absl::StatusOr<std::vector<JoinToken>> ReadJoinTokens(const std::string& dir) {
  std::vector<JoinToken> out;
  if (!FileExists(TokensPath(dir))) return out;
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(TokensPath(dir)));
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
    const auto json = ParseJsonObject(line, {.max_depth = 2, .max_values = 10});
    if (!json.ok()) return Annotate(json.status(), TokensPath(dir));
    const auto text = [&json](const char* key) {
      const auto it = json->find(key);
      return it != json->end() && it->is_string() ? it->get<std::string>() : std::string();
    };
    JoinToken token{.sha256 = text("token_sha256"), .worker = text("worker")};
    const auto uses = json->find("uses");
    if (uses != json->end() && uses->is_number_integer()) token.uses = uses->get<int>();
    std::string error;
    if (absl::ParseTime(absl::RFC3339_full, text("expires"), &token.expires, &error))
      out.push_back(std::move(token));
  }
  return out;
}

absl::Status WriteJoinTokens(const std::string& dir, const std::vector<JoinToken>& tokens) {
  std::string text;
  for (const JoinToken& token : tokens) {
    nlohmann::ordered_json json = {
        {"token_sha256", token.sha256},
        {"uses", token.uses},
        {"expires", absl::FormatTime("%Y-%m-%d%ET%H:%M:%SZ", token.expires, absl::UTCTimeZone())}};
    if (!token.worker.empty()) json["worker"] = token.worker;
    absl::StrAppend(&text, json.dump(), "\n");
  }
  return WriteFileAtomic(TokensPath(dir), text, 0600);
}

absl::Status UnknownToken() {
  return FieldStatus(
      absl::StatusCode::kUnauthenticated, "token",
      "the join token is not good for this name, or not any more",
      "make one on the coordinator's host: ll-coordinator pki join-token --worker NAME");
}

}  // namespace

absl::StatusOr<std::string> MakeJoinToken(const std::string& dir, const std::string& worker,
                                          int uses, absl::Time expires, Random& random) {
  if (!worker.empty() && !IsIdentityName(worker)) {
    return MakeFieldError(
        {"worker", "1 to 64 letters, digits, '.', '_' or '-'", OneLine(worker.substr(0, 80))});
  }
  if (uses < 1 || uses > 10'000) return MakeFieldError({"uses", "1 to 10000", absl::StrCat(uses)});
  LL_ASSIGN_OR_RETURN(const FileLock lock, FileLock::Take(TokensPath(dir)));
  LL_ASSIGN_OR_RETURN(std::vector<JoinToken> tokens, ReadJoinTokens(dir));
  const std::string token = NewToken(random);
  tokens.push_back({Sha256Hex(token), worker, uses, expires});
  LL_RETURN_IF_ERROR(WriteJoinTokens(dir, tokens));
  return token;
}

absl::StatusOr<v1::JoinResponse> JoinDesk::Sign(const v1::JoinRequest& request, bool known,
                                                absl::Time now) {
  if (dir_.empty()) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "pki-dir",
                       "this coordinator signs no certificates",
                       "start it with --pki-dir, or copy a certificate: docs/security.md");
  }
  if (!IsIdentityName(request.worker())) {
    return MakeFieldError({"worker", "1 to 64 letters, digits, '.', '_' or '-'",
                           OneLine(request.worker().substr(0, 80))});
  }
  absl::MutexLock turn(&mu_);
  LL_ASSIGN_OR_RETURN(const FileLock lock, FileLock::Take(TokensPath(dir_)));
  LL_ASSIGN_OR_RETURN(std::vector<JoinToken> tokens, ReadJoinTokens(dir_));
  const std::string hash = Sha256Hex(request.token());
  JoinToken* found = nullptr;
  for (JoinToken& token : tokens) {
    if (token.sha256.size() == hash.size() &&
        CRYPTO_memcmp(token.sha256.data(), hash.data(), hash.size()) == 0)
      found = &token;
  }
  if (found == nullptr || found->uses < 1 || now >= found->expires) return UnknownToken();
  if (found->worker.empty() ? known : found->worker != request.worker()) return UnknownToken();
  KeyPair authority;
  LL_ASSIGN_OR_RETURN(authority.certificate_pem,
                      ReadFile(absl::StrCat(dir_, "/", kAuthorityCertificate)));
  LL_ASSIGN_OR_RETURN(authority.key_pem, ReadFile(absl::StrCat(dir_, "/", kAuthorityKey)));
  v1::JoinResponse response;
  LL_ASSIGN_OR_RETURN(std::string signed_pem,
                      SignCsr(authority, request.csr_pem(), {.worker = request.worker()}, now,
                              kCertificateValidity));
  // Used up before the certificate leaves: a crash costs a token, never gives two certificates.
  --found->uses;
  tokens.erase(std::remove_if(tokens.begin(), tokens.end(),
                              [now](const JoinToken& t) { return t.uses < 1 || now >= t.expires; }),
               tokens.end());
  LL_RETURN_IF_ERROR(WriteJoinTokens(dir_, tokens));
  response.set_certificate_pem(std::move(signed_pem));
  response.set_ca_pem(authority.certificate_pem);
  return response;
}

}  // namespace ll
