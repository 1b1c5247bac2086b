// Where a tracker posts to: an address that is checked once, headers from a file, and errors in the
// form that TrackerQueue understands.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/http.h"

namespace ll {

struct HttpTarget {
  std::string scheme_host;  // "http://127.0.0.1:4318"
  std::string path;         // "/prefix", without a slash at its end; may be empty
  std::vector<std::pair<std::string, std::string>> headers;
  absl::Duration timeout = absl::Seconds(10);
  HttpTransport* transport = nullptr;  // outlives the target
  // True ends every exchange, also one that is under way.
  std::shared_ptr<std::atomic<bool>> cancelled = std::make_shared<std::atomic<bool>>(false);
};

// `url`: http:// or https://, a host, perhaps a port and a path. `headers_file`: lines "NAME:
// VALUE", for secrets; empty: none. Errors: field `flag` (or `flag`-headers), with what is wrong,
// never with a header's value.
absl::StatusOr<HttpTarget> MakeHttpTarget(const std::string& flag, const std::string& url,
                                          const std::string& headers_file,
                                          HttpTransport& transport);

// One exchange of JSON; `query` and `body` may be empty. Errors: Unavailable (no connection,
// 429, 5xx), NotFound (404), others FailedPrecondition with the answer's beginning.
absl::StatusOr<std::string> Exchange(
    const HttpTarget& target, const std::string& method, const std::string& path,
    const std::string& body, const std::vector<std::pair<std::string, std::string>>& query = {});

}  // namespace ll
