// AWS Signature Version 4, as S3 wants it (docs.aws.amazon.com: "Authenticating Requests: Using the
// Authorization Header"). Ours and not libcurl's: 7.88 neither sorts the query nor signs parameters
// without a value, which S3's multipart calls have.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "storage/http.h"

namespace ll {

struct AwsCredentials {
  std::string access_key, secret_key;
  std::string session_token;  // of temporary ones; else empty
};

// The SHA-256 of `bytes`, not as hex.
std::string Sha256Bytes(absl::string_view bytes);

// Adds X-Amz-Date, X-Amz-Content-Sha256, X-Amz-Security-Token (where there is a token) and
// Authorization. Every header that the request has by then is signed, and Host.
void SignV4(HttpRequest& request, absl::string_view payload_sha256_hex,
            const AwsCredentials& credentials, absl::string_view region, absl::Time now);

}  // namespace ll
