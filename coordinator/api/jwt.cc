#include "coordinator/api/jwt.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "rpc/token_file.h"

namespace ll {
namespace {

constexpr size_t kMaxTokenBytes = 16 << 10;
constexpr JsonLimits kLimits{.max_depth = 8, .max_values = 1000};
constexpr absl::Duration kLeeway = absl::Seconds(60);
constexpr int kLeastRsaBits = 2048;
constexpr size_t kP256Bytes = 32;
constexpr const char* kScopes[] = {"read", "submit", "cancel",
                                   "admin"};  // agents bring certificates

struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeKey>;

enum class Algorithm { kRs256, kEs256, kEdDsa };

absl::string_view NameOf(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kRs256:
      return "RS256";
    case Algorithm::kEs256:
      return "ES256";
    case Algorithm::kEdDsa:
      return "EdDSA";
  }
  return "";
}

absl::Status BadKeys(absl::string_view found) {
  return MakeFieldError({"oidc-keys",
                         "RSA (2048 bits or more), EC P-256 or Ed25519 public keys, as JWKS or PEM",
                         found});
}

absl::Status Refused(absl::string_view why) {
  return FieldStatus(absl::StatusCode::kUnauthenticated, "token",
                     absl::StrCat("the token is refused: ", why),
                     "ask the identity provider for a new one");
}

// Base64url without padding, and nothing that decodes to the same bytes in another way.
absl::StatusOr<std::string> Decode(absl::string_view part) {
  std::string out;
  if (part.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") !=
          absl::string_view::npos ||
      !absl::WebSafeBase64Unescape(part, &out))
    return Refused("it is not base64url");
  return out;
}

absl::StatusOr<Algorithm> AlgorithmOf(EVP_PKEY* key) {
  if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA && EVP_PKEY_get_bits(key) >= kLeastRsaBits)
    return Algorithm::kRs256;
  if (EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519) return Algorithm::kEdDsa;
  char group[64] = {};
  size_t length = 0;
  if (EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
      EVP_PKEY_get_group_name(key, group, sizeof group, &length) == 1 &&
      (absl::string_view(group) == "prime256v1" || absl::string_view(group) == "P-256"))
    return Algorithm::kEs256;
  return BadKeys("another kind of key");
}

std::string TextOf(const nlohmann::json& json, const std::string& name) {
  const auto it = json.find(name);
  return it != json.end() && it->is_string() ? it->get<std::string>() : std::string();
}

KeyPtr FromParameters(const char* type, OSSL_PARAM_BLD* builder) {
  OSSL_PARAM* parameters = OSSL_PARAM_BLD_to_param(builder);
  EVP_PKEY_CTX* context = EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr);
  EVP_PKEY* key = nullptr;
  if (parameters != nullptr && context != nullptr && EVP_PKEY_fromdata_init(context) == 1)
    EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, parameters);
  EVP_PKEY_CTX_free(context);
  OSSL_PARAM_free(parameters);
  ERR_clear_error();
  return KeyPtr(key);
}

KeyPtr RsaKey(const std::string& modulus, const std::string& exponent) {
  const auto number = [](const std::string& bytes) {
    return BN_bin2bn(reinterpret_cast<const unsigned char*>(bytes.data()),
                     static_cast<int>(bytes.size()), nullptr);
  };
  BIGNUM* n = number(modulus);
  BIGNUM* e = number(exponent);
  OSSL_PARAM_BLD* builder = OSSL_PARAM_BLD_new();
  KeyPtr key;
  if (OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
      OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, e) == 1)
    key = FromParameters("RSA", builder);
  OSSL_PARAM_BLD_free(builder);
  BN_free(n);
  BN_free(e);
  return key;
}

KeyPtr EcKey(const std::string& x, const std::string& y) {
  if (x.size() != kP256Bytes || y.size() != kP256Bytes) return nullptr;
  const std::string point = absl::StrCat("\x04", x, y);
  OSSL_PARAM_BLD* builder = OSSL_PARAM_BLD_new();
  KeyPtr key;
  if (OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) == 1 &&
      OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point.data(),
                                       point.size()) == 1)
    key = FromParameters("EC", builder);
  OSSL_PARAM_BLD_free(builder);
  return key;
}

KeyPtr KeyOfJwk(const nlohmann::json& jwk) {
  const auto bytes = [&jwk](const char* name) {
    return Decode(TextOf(jwk, name)).value_or(std::string());
  };
  const std::string type = TextOf(jwk, "kty");
  if (type == "RSA") return RsaKey(bytes("n"), bytes("e"));
  if (type == "EC" && TextOf(jwk, "crv") == "P-256") return EcKey(bytes("x"), bytes("y"));
  if (type == "OKP" && TextOf(jwk, "crv") == "Ed25519") {
    const std::string x = bytes("x");
    return KeyPtr(EVP_PKEY_new_raw_public_key(
        EVP_PKEY_ED25519, nullptr, reinterpret_cast<const unsigned char*>(x.data()), x.size()));
  }
  return nullptr;
}

// ECDSA signatures are two numbers side by side in a token, and DER in OpenSSL.
std::string DerOf(absl::string_view raw) {
  if (raw.size() != 2 * kP256Bytes) return "";
  const auto* bytes = reinterpret_cast<const unsigned char*>(raw.data());
  ECDSA_SIG* signature = ECDSA_SIG_new();
  ECDSA_SIG_set0(signature, BN_bin2bn(bytes, kP256Bytes, nullptr),
                 BN_bin2bn(bytes + kP256Bytes, kP256Bytes, nullptr));
  unsigned char* der = nullptr;
  const int length = i2d_ECDSA_SIG(signature, &der);
  std::string out(reinterpret_cast<char*>(der), static_cast<size_t>(std::max(length, 0)));
  OPENSSL_free(der);
  ECDSA_SIG_free(signature);
  return out;
}

bool Verifies(EVP_PKEY* key, Algorithm algorithm, absl::string_view text, absl::string_view given) {
  const std::string signature = algorithm == Algorithm::kEs256 ? DerOf(given) : std::string(given);
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  const EVP_MD* digest = algorithm == Algorithm::kEdDsa ? nullptr : EVP_sha256();
  const bool good =
      !signature.empty() && EVP_DigestVerifyInit(context, nullptr, digest, nullptr, key) == 1 &&
      EVP_DigestVerify(context, reinterpret_cast<const unsigned char*>(signature.data()),
                       signature.size(), reinterpret_cast<const unsigned char*>(text.data()),
                       text.size()) == 1;
  EVP_MD_CTX_free(context);
  ERR_clear_error();
  return good;
}

absl::StatusOr<absl::Time> TimeOf(const nlohmann::json& claims, const char* name) {
  const auto it = claims.find(name);
  if (it == claims.end() || !it->is_number()) return Refused(absl::StrCat("it has no ", name));
  const double seconds = it->get<double>();
  if (!(seconds >= 0 && seconds < 1e11)) return Refused(absl::StrCat("its ", name, " is no time"));
  return absl::FromUnixSeconds(static_cast<int64_t>(seconds));
}

bool IsFor(const nlohmann::json& claims, const std::string& audience) {
  const auto it = claims.find("aud");
  if (it == claims.end()) return false;
  if (it->is_string()) return it->get<std::string>() == audience;
  return it->is_array() && std::any_of(it->begin(), it->end(), [&](const auto& one) {
           return one.is_string() && one.template get<std::string>() == audience;
         });
}

std::set<std::string> ScopesOf(const nlohmann::json& claims, const std::string& claim) {
  std::vector<std::string> words;
  const auto it = claims.find(claim);
  if (it == claims.end()) return {};
  if (it->is_string()) {
    words = absl::StrSplit(it->get<std::string>(), ' ', absl::SkipEmpty());
  } else if (it->is_array()) {
    for (const auto& word : *it) {
      if (word.is_string()) words.push_back(word.get<std::string>());
    }
  }
  std::set<std::string> out;
  for (const std::string& word : words) {
    const std::string name(absl::StripPrefix(word, "ll:"));
    if (std::find(std::begin(kScopes), std::end(kScopes), name) != std::end(kScopes))
      out.insert(name);
  }
  return out;
}

absl::Status CheckClaims(const nlohmann::json& claims, const OidcOptions& options, absl::Time now) {
  if (TextOf(claims, "iss") != options.issuer) return Refused("another issuer made it");
  if (!IsFor(claims, options.audience)) return Refused("it is for another audience");
  LL_ASSIGN_OR_RETURN(const absl::Time expires, TimeOf(claims, "exp"));
  if (now >= expires + kLeeway) return Refused("it has expired");
  for (const char* name : {"nbf", "iat"}) {
    if (!claims.contains(name)) continue;
    LL_ASSIGN_OR_RETURN(const absl::Time begins, TimeOf(claims, name));
    if (now + kLeeway < begins) return Refused("it is not valid yet");
  }
  return absl::OkStatus();
}

}  // namespace

struct JwtKeys::Key {
  KeyPtr key;
  Algorithm algorithm;
  std::string id;  // "kid"; empty: none
};

JwtKeys::JwtKeys() = default;
JwtKeys::~JwtKeys() = default;
JwtKeys::JwtKeys(JwtKeys&&) noexcept = default;
JwtKeys& JwtKeys::operator=(JwtKeys&&) noexcept = default;

absl::StatusOr<JwtKeys> JwtKeys::Parse(absl::string_view text) {
  JwtKeys out;
  const auto add = [&out](KeyPtr key, std::string id) -> absl::Status {
    if (key == nullptr) return BadKeys("something else");
    LL_ASSIGN_OR_RETURN(const Algorithm algorithm, AlgorithmOf(key.get()));
    auto made = std::make_unique<Key>();
    made->key = std::move(key);
    made->algorithm = algorithm;
    made->id = std::move(id);
    out.keys_.push_back(std::move(made));
    return absl::OkStatus();
  };
  if (absl::StripLeadingAsciiWhitespace(text).substr(0, 1) == "{") {
    const auto json = ParseJsonObject(text, {.max_depth = 8, .max_values = 10'000});
    if (!json.ok() || !json->contains("keys") || !(*json)["keys"].is_array())
      return BadKeys("JSON without a list of keys");
    for (const auto& jwk : (*json)["keys"]) {
      // Keys for other purposes stand beside those for signatures.
      if (!jwk.is_object() || TextOf(jwk, "use") == "enc") continue;
      const std::string word = TextOf(jwk, "alg");
      KeyPtr key = KeyOfJwk(jwk);
      if (key == nullptr) continue;
      const auto algorithm = AlgorithmOf(key.get());
      if (!algorithm.ok() || (!word.empty() && word != NameOf(*algorithm))) continue;
      LL_RETURN_IF_ERROR(add(std::move(key), TextOf(jwk, "kid")));
    }
  } else {
    BIO* bio = BIO_new_mem_buf(text.data(), static_cast<int>(text.size()));
    absl::Status status;
    while (status.ok()) {
      EVP_PKEY* key = PEM_read_bio_PUBKEY(bio, nullptr, nullptr, nullptr);
      if (key == nullptr) break;
      status = add(KeyPtr(key), "");
    }
    BIO_free(bio);
    ERR_clear_error();
    LL_RETURN_IF_ERROR(status);
  }
  if (out.keys_.empty()) return BadKeys("none");
  return out;
}

absl::StatusOr<JwtCaller> JwtKeys::Verify(absl::string_view token, const OidcOptions& options,
                                          absl::Time now) const {
  if (token.size() > kMaxTokenBytes) return Refused("it is too long");
  const std::vector<absl::string_view> parts = absl::StrSplit(token, '.');
  if (parts.size() != 3) return Refused("it has not three parts");
  LL_ASSIGN_OR_RETURN(const std::string head_text, Decode(parts[0]));
  LL_ASSIGN_OR_RETURN(const std::string signature, Decode(parts[2]));
  const auto head = ParseJsonObject(head_text, kLimits);
  if (!head.ok()) return Refused("its header is no JSON object");
  if (head->contains("crit")) return Refused("its header asks for what is not known here");
  const std::string algorithm = TextOf(*head, "alg"), id = TextOf(*head, "kid");
  const absl::string_view signed_text = token.substr(0, parts[0].size() + 1 + parts[1].size());
  const bool good = std::any_of(keys_.begin(), keys_.end(), [&](const auto& key) {
    return NameOf(key->algorithm) == algorithm &&
           (id.empty() || key->id.empty() || key->id == id) &&
           Verifies(key->key.get(), key->algorithm, signed_text, signature);
  });
  if (!good) return Refused("no key of the identity provider has signed it");
  // Only now is any of it believed.
  LL_ASSIGN_OR_RETURN(const std::string claims_text, Decode(parts[1]));
  const auto claims = ParseJsonObject(claims_text, kLimits);
  if (!claims.ok()) return Refused("its claims are no JSON object");
  LL_RETURN_IF_ERROR(CheckClaims(*claims, options, now));
  JwtCaller caller;
  const std::string user = TextOf(*claims, options.user_claim);
  caller.user = absl::StrCat(options.user_prefix, user);
  if (user.empty() || !IsUserName(caller.user)) return Refused("it names no user");
  if (claims->contains(options.tenant_claim)) {
    caller.tenant = TextOf(*claims, options.tenant_claim);
    if (!IsTenantName(caller.tenant)) return Refused("its tenant is no name");
  }
  caller.scopes = ScopesOf(*claims, options.scope_claim);
  return caller;
}

bool LooksLikeJwt(absl::string_view token) {
  return std::count(token.begin(), token.end(), '.') == 2;
}

}  // namespace ll
