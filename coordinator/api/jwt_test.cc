#include "coordinator/api/jwt.h"

#include <algorithm>

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_matchers.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using ::testing::ElementsAre;
using Json = nlohmann::json;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

std::string Url(absl::string_view bytes) { return absl::WebSafeBase64Escape(bytes); }

// A key of an identity provider, which signs what it is told to.
class Signer {
 public:
  explicit Signer(const std::string& algorithm) : algorithm_(algorithm) {
    if (algorithm == "RS256") key_ = EVP_RSA_gen(2048);
    if (algorithm == "ES256") key_ = EVP_EC_gen("P-256");
    if (algorithm == "EdDSA") key_ = EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  }
  explicit Signer(EVP_PKEY* key) : algorithm_("?"), key_(key) {}
  ~Signer() { EVP_PKEY_free(key_); }

  std::string Pem() const {
    BIO* bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PUBKEY(bio, key_);
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio, &data);
    std::string out(data, static_cast<size_t>(size));
    BIO_free(bio);
    return out;
  }
  Json Jwk(const std::string& kid) const {
    if (algorithm_ == "RS256")
      return {{"kty", "RSA"},
              {"kid", kid},
              {"n", Number(OSSL_PKEY_PARAM_RSA_N)},
              {"e", Number(OSSL_PKEY_PARAM_RSA_E)}};
    if (algorithm_ == "ES256")
      return {{"kty", "EC"},
              {"crv", "P-256"},
              {"kid", kid},
              {"alg", "ES256"},
              {"x", Number(OSSL_PKEY_PARAM_EC_PUB_X, 32)},
              {"y", Number(OSSL_PKEY_PARAM_EC_PUB_Y, 32)}};
    std::string raw(32, '\0');
    size_t size = raw.size();
    EVP_PKEY_get_raw_public_key(key_, reinterpret_cast<unsigned char*>(raw.data()), &size);
    return {{"kty", "OKP"}, {"crv", "Ed25519"}, {"kid", kid}, {"x", Url(raw)}};
  }
  std::string Sign(const Json& head, const Json& claims) const {
    const std::string text = absl::StrCat(Url(head.dump()), ".", Url(claims.dump()));
    std::string signature(1024, '\0');
    size_t size = signature.size();
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    EVP_DigestSignInit(context, nullptr, algorithm_ == "EdDSA" ? nullptr : EVP_sha256(), nullptr,
                       key_);
    EVP_DigestSign(context, reinterpret_cast<unsigned char*>(signature.data()), &size,
                   reinterpret_cast<const unsigned char*>(text.data()), text.size());
    EVP_MD_CTX_free(context);
    signature.resize(size);
    return absl::StrCat(text, ".", Url(algorithm_ == "ES256" ? Raw(signature) : signature));
  }
  std::string Token(const Json& claims, const std::string& kid = "") const {
    Json head = {{"alg", algorithm_}, {"typ", "JWT"}};
    if (!kid.empty()) head["kid"] = kid;
    return Sign(head, claims);
  }

 private:
  std::string Number(const char* name, int pad = 0) const {
    BIGNUM* number = nullptr;
    EVP_PKEY_get_bn_param(key_, name, &number);
    std::string bytes(static_cast<size_t>(std::max(pad, BN_num_bytes(number))), '\0');
    BN_bn2binpad(number, reinterpret_cast<unsigned char*>(bytes.data()),
                 static_cast<int>(bytes.size()));
    BN_free(number);
    return Url(bytes);
  }
  static std::string Raw(const std::string& der) {
    const auto* at = reinterpret_cast<const unsigned char*>(der.data());
    ECDSA_SIG* signature = d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(der.size()));
    std::string out(64, '\0');
    BN_bn2binpad(ECDSA_SIG_get0_r(signature), reinterpret_cast<unsigned char*>(out.data()), 32);
    BN_bn2binpad(ECDSA_SIG_get0_s(signature), reinterpret_cast<unsigned char*>(out.data()) + 32,
                 32);
    ECDSA_SIG_free(signature);
    return out;
  }
  std::string algorithm_;
  EVP_PKEY* key_ = nullptr;
};

OidcOptions Provider() {
  OidcOptions options;
  options.issuer = "https://id.example";
  options.audience = "ll";
  return options;
}
Json Claims() {
  return {{"iss", "https://id.example"},
          {"aud", "ll"},
          {"sub", "ann"},
          {"exp", absl::ToUnixSeconds(kNow) + 600},
          {"scope", "openid ll:read submit"},
          {"ll_tenant", "red"}};
}

TEST(Jwt, EachAlgorithmByJwksAndByPem) {
  const Signer rsa("RS256"), ec("ES256"), ed("EdDSA");
  Json set = {{"keys",
               {rsa.Jwk("r"),
                ec.Jwk("e"),
                ed.Jwk("d"),
                {{"kty", "EC"}, {"crv", "P-521"}, {"kid", "of another kind"}}}}};
  LL_ASSERT_OK_AND_ASSIGN(const JwtKeys jwks, JwtKeys::Parse(set.dump()));
  LL_ASSERT_OK_AND_ASSIGN(const JwtKeys pem,
                          JwtKeys::Parse(rsa.Pem() + ec.Pem() + "\n" + ed.Pem()));
  EXPECT_EQ(jwks.size(), 3u);
  for (const JwtKeys* keys : {&jwks, &pem}) {
    for (const Signer* signer : {&rsa, &ec, &ed}) {
      LL_ASSERT_OK_AND_ASSIGN(const JwtCaller caller,
                              keys->Verify(signer->Token(Claims()), Provider(), kNow));
      EXPECT_EQ(caller.user, "oidc:ann");
      EXPECT_EQ(caller.tenant, "red");
      EXPECT_THAT(caller.scopes, ElementsAre("read", "submit"));
    }
  }
  LL_EXPECT_OK(jwks.Verify(ec.Token(Claims(), "e"), Provider(), kNow));
  EXPECT_THAT(jwks.Verify(ec.Token(Claims(), "r"), Provider(), kNow),
              StatusIs(absl::StatusCode::kUnauthenticated, "no key"));
}

TEST(Jwt, WhatClaimsSayIsCheckedOnlyBehindAGoodSignature) {
  const Signer ec("ES256"), other("ES256");
  LL_ASSERT_OK_AND_ASSIGN(const JwtKeys keys, JwtKeys::Parse(ec.Pem()));
  const auto refused = [&](const std::string& token, const char* why) {
    EXPECT_THAT(keys.Verify(token, Provider(), kNow),
                StatusIs(absl::StatusCode::kUnauthenticated, why))
        << token;
  };
  refused(other.Token(Claims()), "no key");
  const std::string good = ec.Token(Claims());
  // Each character of the signed part counts.
  for (const size_t at : {size_t{5}, good.find('.') + 5, good.rfind('.') + 5}) {
    std::string changed = good;
    changed[at] = changed[at] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(keys.Verify(changed, Provider(), kNow).ok()) << at;
  }
  const auto with = [&](const char* name, const Json& value) {
    Json claims = Claims();
    claims[name] = value;
    return ec.Token(claims);
  };
  const auto without = [&](const char* name) {
    Json claims = Claims();
    claims.erase(name);
    return ec.Token(claims);
  };
  const int64_t now = absl::ToUnixSeconds(kNow);
  refused(with("iss", "https://evil.example"), "issuer");
  refused(without("iss"), "issuer");
  refused(with("aud", "another"), "audience");
  refused(with("aud", Json::array({"a", "b"})), "audience");
  refused(without("aud"), "audience");
  refused(without("exp"), "exp");
  refused(with("exp", "soon"), "exp");
  refused(with("exp", now - 61), "expired");
  refused(with("nbf", now + 61), "not valid yet");
  refused(with("iat", now + 61), "not valid yet");
  refused(with("sub", ""), "no user");
  refused(with("sub", "a\nb"), "no user");
  refused(without("sub"), "no user");
  refused(with("ll_tenant", "red/blue"), "tenant");
  refused(with("ll_tenant", 7), "tenant");
  LL_EXPECT_OK(keys.Verify(with("exp", now - 59), Provider(), kNow));  // clocks differ a little
  LL_EXPECT_OK(keys.Verify(with("nbf", now + 59), Provider(), kNow));
  LL_EXPECT_OK(keys.Verify(with("aud", Json::array({"x", "ll"})), Provider(), kNow));
  LL_ASSERT_OK_AND_ASSIGN(
      const JwtCaller none,
      keys.Verify(with("scope", Json::array({"worker", "root", 7})), Provider(), kNow));
  EXPECT_TRUE(none.scopes.empty());  // an agent's scope is not to be had so
}

// The word "alg" is the attacker's: neither no signature at all nor the public key as a secret.
TEST(Jwt, AlgorithmsAreNotTheTokensChoice) {
  const Signer rsa("RS256"), ec("ES256");
  LL_ASSERT_OK_AND_ASSIGN(const JwtKeys keys, JwtKeys::Parse(rsa.Pem()));
  for (const char* word : {"none", "None", "", "HS256", "RS384", "ES256", "rs256"}) {
    EXPECT_THAT(keys.Verify(rsa.Sign({{"alg", word}}, Claims()), Provider(), kNow),
                StatusIs(absl::StatusCode::kUnauthenticated, "no key"))
        << word;
  }
  const std::string text = absl::StrCat(Url(R"({"alg":"HS256"})"), ".", Url(Claims().dump()));
  EXPECT_FALSE(keys.Verify(text + ".", Provider(), kNow).ok());
  const std::string secret = rsa.Pem();
  unsigned char mac[32];
  unsigned length = sizeof mac;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), mac, &length);
  for (const char* word : {"HS256", "RS256"}) {
    const std::string head = Url(absl::StrCat(R"({"alg":")", word, R"("})"));
    const std::string forged =
        absl::StrCat(head, ".", Url(Claims().dump()), ".",
                     Url(absl::string_view(reinterpret_cast<char*>(mac), length)));
    EXPECT_FALSE(keys.Verify(forged, Provider(), kNow).ok()) << word;
  }
  EXPECT_THAT(
      keys.Verify(rsa.Sign({{"alg", "RS256"}, {"crit", {"exp"}}}, Claims()), Provider(), kNow),
      StatusIs(absl::StatusCode::kUnauthenticated, "header"));
}

TEST(Jwt, RubbishIsRefusedAndNeverCrashes) {
  const Signer ec("ES256");
  LL_ASSERT_OK_AND_ASSIGN(const JwtKeys keys, JwtKeys::Parse(ec.Pem()));
  const std::string good = ec.Token(Claims());
  std::vector<std::string> bad = {"",
                                  ".",
                                  "..",
                                  "a.b.c",
                                  "....",
                                  good + ".x",
                                  good + "=",
                                  std::string(20'000, 'a') + "..",
                                  good.substr(0, good.size() - 1)};
  // An infinite, or all-zero, ECDSA signature.
  const std::string text = good.substr(0, good.rfind('.') + 1);
  bad.push_back(text + Url(std::string(64, '\0')));
  bad.push_back(text + Url(std::string(64, '\xff')));
  bad.push_back(absl::StrCat(Url(std::string(9000, '[')), ".", Url("{}"), "."));
  for (const std::string& token : bad)
    EXPECT_FALSE(keys.Verify(token, Provider(), kNow).ok()) << token.substr(0, 80);
  for (size_t cut = 0; cut < good.size(); cut += 3)
    EXPECT_FALSE(keys.Verify(good.substr(0, cut), Provider(), kNow).ok()) << cut;

  for (const std::string& text_of_keys :
       {std::string(), std::string("no keys"), std::string("{}"), std::string("{\"keys\":[]}"),
        std::string("{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}]}"),
        std::string("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}]}"),
        Signer(EVP_RSA_gen(1024)).Pem(), Signer(EVP_EC_gen("P-384")).Pem()})
    EXPECT_THAT(JwtKeys::Parse(text_of_keys),
                StatusIs(absl::StatusCode::kInvalidArgument, "oidc-keys"))
        << text_of_keys;
}

}  // namespace
}  // namespace ll
