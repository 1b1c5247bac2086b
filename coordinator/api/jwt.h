// Bearer tokens of an identity provider: JSON Web Tokens (RFC 7519), signed with a key that this
// coordinator was given.
//
// The configured keys say which algorithm each verifies; the token's own word for it ("alg") must
// be that one, so that neither "none" nor a public key taken for a shared secret gets in. Pure but
// for Open; thread-safe.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ll {

struct OidcOptions {
  std::string keys_file;  // JWKS (JSON), or PEM public keys or certificates; empty: no such tokens
  std::string issuer;     // "iss" must be this
  std::string audience;   // "aud" must be this or hold it
  std::string user_claim = "sub";
  std::string user_prefix = "oidc:";  // keeps these users apart from those of the tokens file
  std::string tenant_claim = "ll_tenant";
  std::string scope_claim = "scope";  // a list, or words in one string; "ll:read" counts as "read"
};

struct JwtCaller {
  std::string user;
  std::string tenant;
  std::set<std::string> scopes;  // out of read, submit, cancel, admin; others are left out
};

// The public keys of a provider.
class JwtKeys {
 public:
  // `text` as OidcOptions::keys_file holds it. InvalidArgument (field "oidc-keys"): no key, or one
  // that is neither RSA of at least 2048 bits, EC P-256 nor Ed25519.
  static absl::StatusOr<JwtKeys> Parse(absl::string_view text);
  ~JwtKeys();
  JwtKeys(JwtKeys&&) noexcept;
  JwtKeys& operator=(JwtKeys&&) noexcept;
  size_t size() const { return keys_.size(); }

  // Unauthenticated (field "token"): not a token of this provider for this audience at `now`; the
  // reason names no part of it.
  absl::StatusOr<JwtCaller> Verify(absl::string_view token, const OidcOptions& options,
                                   absl::Time now) const;

 private:
  struct Key;
  JwtKeys();
  std::vector<std::unique_ptr<Key>> keys_;
};

// Three parts with dots between: what no token of the tokens file looks like.
bool LooksLikeJwt(absl::string_view token);

}  // namespace ll
