#include "tracker/http_target.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr int64_t kMaxHeadersFile = 64 << 10;
constexpr int64_t kMaxAnswer = 4 << 20;
constexpr size_t kAnswerShown = 200;

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadHeaders(
    const std::string& flag, const std::string& file) {
  std::vector<std::pair<std::string, std::string>> headers;
  if (file.empty()) return headers;
  LL_ASSIGN_OR_RETURN(const std::string text, ReadPlainFile(file, kMaxHeadersFile));
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    const size_t colon = line.find(':');
    if (colon == 0 || colon == absl::string_view::npos) {
      // The line may be a secret: it is not shown.
      return MakeFieldError({flag, "lines \"NAME: VALUE\"",
                             absl::StrCat("something else in line ", number, " of ", file)});
    }
    headers.emplace_back(line.substr(0, colon), absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return headers;
}

}  // namespace

absl::StatusOr<HttpTarget> MakeHttpTarget(const std::string& flag, const std::string& url,
                                          const std::string& headers_file,
                                          HttpTransport& transport) {
  HttpTarget target;
  target.transport = &transport;
  const size_t host = absl::StartsWith(url, "http://")    ? 7
                      : absl::StartsWith(url, "https://") ? 8
                                                          : 0;
  const size_t slash = url.find('/', host);
  target.scheme_host = url.substr(0, slash);
  const bool odd = url.find_first_of(" \t\r\n?#\"") != std::string::npos ||
                   target.scheme_host.find('@') != std::string::npos;
  if (host == 0 || target.scheme_host.size() == host || odd) {
    return MakeFieldError({flag, "http://HOST[:PORT][/PATH] or https://…, without user and query",
                           url.find('@') == std::string::npos ? OneLine(url) : "one with a user",
                           "secrets belong into the headers file"});
  }
  if (slash != std::string::npos) target.path = url.substr(slash);
  while (absl::EndsWith(target.path, "/")) target.path.pop_back();
  LL_ASSIGN_OR_RETURN(target.headers, ReadHeaders(absl::StrCat(flag, "-headers"), headers_file));
  return target;
}

absl::StatusOr<std::string> Exchange(
    const HttpTarget& target, const std::string& method, const std::string& path,
    const std::string& body, const std::vector<std::pair<std::string, std::string>>& query) {
  HttpRequest request;
  request.method = method;
  request.scheme_host = target.scheme_host;
  request.path = absl::StrCat(target.path, path);
  request.query = query;
  request.headers = target.headers;
  if (!body.empty()) request.headers.emplace_back("Content-Type", "application/json");
  request.body = body;
  request.timeout = target.timeout;
  request.cancelled = target.cancelled.get();
  request.max_response_bytes = kMaxAnswer;
  LL_ASSIGN_OR_RETURN(HttpResponse response, target.transport->Send(request));
  if (response.status / 100 == 2) return std::move(response.body);
  const std::string message =
      absl::StrCat(method, " ", target.scheme_host, request.path, ": status ", response.status,
                   ", ", OneLine(response.body.substr(0, kAnswerShown)));
  if (response.status == 429 || response.status >= 500) return absl::UnavailableError(message);
  if (response.status == 404) return absl::NotFoundError(message);
  return absl::FailedPreconditionError(message);
}

}  // namespace ll
