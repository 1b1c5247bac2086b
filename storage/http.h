// One HTTP exchange, injected: S3 speaks through it, tests put faults behind it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ll {

struct HttpRequest {
  std::string method = "GET";
  std::string scheme_host;  // "https://bucket.s3.eu-west-1.amazonaws.com", perhaps with a port
  std::string path = "/";   // percent-encoded
  std::vector<std::pair<std::string, std::string>> query;    // not encoded
  std::vector<std::pair<std::string, std::string>> headers;  // without Host
  absl::string_view body;                                    // the caller's
  int64_t max_response_bytes = 64 << 20;
  absl::Duration timeout = absl::Minutes(2);     // of the whole exchange
  std::string ca_file;                           // PEM; empty: the system's
  const std::atomic<bool>* cancelled = nullptr;  // true ends the exchange; null: nothing does
};

struct HttpResponse {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;

  // Empty where there is none.
  absl::string_view Header(absl::string_view lower_case_name) const;
};

class HttpTransport {
 public:
  virtual ~HttpTransport() = default;
  // Any answer that arrived whole, whatever its status. Errors: Unavailable (no connection, cut,
  // timed out), Cancelled, PermissionDenied (the server's certificate), ResourceExhausted (a longer
  // answer than asked for). Thread-safe.
  virtual absl::StatusOr<HttpResponse> Send(const HttpRequest& request) = 0;
};

// libcurl's: connections are kept and certificates verified. Never deleted.
HttpTransport& CurlTransport();

// RFC 3986: everything but letters, digits and -._~ becomes %XX; '/' too unless `keep_slash`.
std::string PercentEncode(absl::string_view text, bool keep_slash);
// The query as it stands in the URL: encoded and sorted.
std::string CanonicalQuery(const HttpRequest& request);

}  // namespace ll
