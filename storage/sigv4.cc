#include "storage/sigv4.h"

#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/sha256.h"

namespace ll {
namespace {

constexpr absl::string_view kService = "s3";

std::string Hmac(absl::string_view key, absl::string_view message) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  unsigned size = 0;
  LL_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                reinterpret_cast<const unsigned char*>(message.data()), message.size(), digest,
                &size) != nullptr);
  return std::string(reinterpret_cast<char*>(digest), size);
}

std::string HostOf(absl::string_view scheme_host) {
  const size_t at = scheme_host.find("://");
  return std::string(at == absl::string_view::npos ? scheme_host : scheme_host.substr(at + 3));
}

}  // namespace

std::string Sha256Bytes(absl::string_view bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  return std::string(reinterpret_cast<char*>(digest), sizeof digest);
}

void SignV4(HttpRequest& request, absl::string_view payload_sha256_hex,
            const AwsCredentials& credentials, absl::string_view region, absl::Time now) {
  const std::string stamp = absl::FormatTime("%Y%m%dT%H%M%SZ", now, absl::UTCTimeZone());
  const std::string day = stamp.substr(0, 8);
  request.headers.emplace_back("X-Amz-Date", stamp);
  request.headers.emplace_back("X-Amz-Content-Sha256", std::string(payload_sha256_hex));
  if (!credentials.session_token.empty())
    request.headers.emplace_back("X-Amz-Security-Token", credentials.session_token);

  std::map<std::string, std::string> headers = {{"host", HostOf(request.scheme_host)}};
  for (const auto& [name, value] : request.headers)
    headers[absl::AsciiStrToLower(name)] = std::string(absl::StripAsciiWhitespace(value));
  std::string lines, names;
  for (const auto& [name, value] : headers) {
    absl::StrAppend(&lines, name, ":", value, "\n");
    absl::StrAppend(&names, names.empty() ? "" : ";", name);
  }
  const std::string canonical =
      absl::StrCat(request.method, "\n", request.path, "\n", CanonicalQuery(request), "\n", lines,
                   "\n", names, "\n", payload_sha256_hex);
  const std::string scope = absl::StrCat(day, "/", region, "/", kService, "/aws4_request");
  const std::string to_sign =
      absl::StrCat("AWS4-HMAC-SHA256\n", stamp, "\n", scope, "\n", Sha256Hex(canonical));
  std::string key = Hmac(absl::StrCat("AWS4", credentials.secret_key), day);
  key = Hmac(Hmac(Hmac(key, region), kService), "aws4_request");
  request.headers.emplace_back(
      "Authorization", absl::StrCat("AWS4-HMAC-SHA256 Credential=", credentials.access_key, "/",
                                    scope, ",SignedHeaders=", names,
                                    ",Signature=", absl::BytesToHexString(Hmac(key, to_sign))));
}

}  // namespace ll
