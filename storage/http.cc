#include "storage/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"

namespace ll {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(10);
// A connection that carries less for so long is dead; the exchange's own deadline may be hours.
constexpr long kLowSpeedBytes = 1024, kLowSpeedSeconds = 30;

// Of a refusal's text; the rest says nothing that a caller reads.
constexpr size_t kMostErrorBytes = 64 << 10;

struct Receiver {
  HttpResponse response;
  bool success = false;  // the status line said 2xx
  int64_t limit = 0;     // of the body where it did
  bool overflow = false;
};

size_t OnBody(char* data, size_t one, size_t count, void* user) {
  auto* receiver = static_cast<Receiver*>(user);
  if (!receiver->success) {
    std::string& text = receiver->response.body;
    text.append(data,
                std::min(count * one, kMostErrorBytes - std::min(kMostErrorBytes, text.size())));
    return count;
  }
  if (static_cast<int64_t>(receiver->response.body.size() + count) > receiver->limit) {
    receiver->overflow = true;
    return 0;
  }
  receiver->response.body.append(data, count * one);
  return count;
}

size_t OnHeader(char* data, size_t one, size_t count, void* user) {
  auto* receiver = static_cast<Receiver*>(user);
  const absl::string_view line(data, count * one);
  const size_t colon = line.find(':');
  if (line.substr(0, 5) == "HTTP/") {
    receiver->response.headers.clear();  // those before were of a "100 Continue"
    const size_t status = line.find(' ');
    receiver->success = status != absl::string_view::npos && line.substr(status + 1, 1) == "2";
  } else if (colon != absl::string_view::npos && receiver->response.headers.size() < 1000) {
    receiver->response.headers.emplace_back(absl::AsciiStrToLower(line.substr(0, colon)),
                                            absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return count;
}

// Called about once a second, and more often while bytes flow.
int OnProgress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const std::atomic<bool>*>(user)->load() ? 1 : 0;
}

absl::Status FromCurl(CURLcode code, const char* detail) {
  const std::string text = absl::StrCat(curl_easy_strerror(code), *detail ? ": " : "", detail);
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return absl::PermissionDeniedError(text);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
      return absl::InvalidArgumentError(text);
    case CURLE_ABORTED_BY_CALLBACK:
      return absl::CancelledError("cancelled");
    default:
      return absl::UnavailableError(text);
  }
}

using Headers = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

// Handles keep their connections, so they are used again.
class Curl : public HttpTransport {
 public:
  Curl() { LL_CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK); }

  absl::StatusOr<HttpResponse> Send(const HttpRequest& request) override {
    CURL* handle = Take();
    auto response = Perform(handle, request);
    Return(handle);
    return response;
  }

 private:
  static absl::StatusOr<HttpResponse> Perform(CURL* handle, const HttpRequest& request) {
    curl_easy_reset(handle);
    Receiver receiver;
    receiver.limit = request.max_response_bytes;
    const std::string query = CanonicalQuery(request);
    const std::string url =
        absl::StrCat(request.scheme_host, request.path, query.empty() ? "" : "?", query);
    char detail[CURL_ERROR_SIZE] = "";
    // Neither what curl would add by itself to a body, nor a wait for "100 Continue".
    Headers headers(curl_slist_append(nullptr, "Expect:"), &curl_slist_free_all);
    bool typed = false;
    for (const auto& [name, value] : request.headers) {
      typed = typed || absl::AsciiStrToLower(name) == "content-type";
      curl_slist_append(headers.get(), absl::StrCat(name, ": ", value).c_str());
    }
    if (!typed) curl_slist_append(headers.get(), "Content-Type:");
    curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(handle, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    if (request.method == "HEAD") curl_easy_setopt(handle, CURLOPT_NOBODY, 1L);
    if (request.method == "PUT" || request.method == "POST") {
      curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE,
                       static_cast<curl_off_t>(request.body.size()));
      curl_easy_setopt(handle, CURLOPT_POSTFIELDS, request.body.empty() ? "" : request.body.data());
    }
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &OnBody);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, &receiver);
    curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, &OnHeader);
    curl_easy_setopt(handle, CURLOPT_HEADERDATA, &receiver);
    curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, detail);
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(absl::ToInt64Milliseconds(kConnectTimeout)));
    curl_easy_setopt(
        handle, CURLOPT_TIMEOUT_MS,
        static_cast<long>(std::max<int64_t>(1, absl::ToInt64Milliseconds(request.timeout))));
    curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, kLowSpeedBytes);
    curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, kLowSpeedSeconds);
    if (request.cancelled != nullptr) {
      curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
      curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &OnProgress);
      curl_easy_setopt(handle, CURLOPT_XFERINFODATA,
                       const_cast<std::atomic<bool>*>(request.cancelled));
    }
    if (!request.ca_file.empty()) curl_easy_setopt(handle, CURLOPT_CAINFO, request.ca_file.c_str());
    const CURLcode code = curl_easy_perform(handle);
    if (receiver.overflow) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the answer is longer than ", request.max_response_bytes, " bytes"));
    }
    if (code != CURLE_OK) return FromCurl(code, detail);
    long status = 0;
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
    receiver.response.status = static_cast<int>(status);
    return std::move(receiver.response);
  }

  CURL* Take() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (!idle_.empty()) {
      CURL* handle = idle_.back();
      idle_.pop_back();
      return handle;
    }
    CURL* handle = curl_easy_init();
    LL_CHECK(handle != nullptr);
    return handle;
  }
  void Return(CURL* handle) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    idle_.push_back(handle);
  }

  absl::Mutex mu_;
  std::vector<CURL*> idle_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::string_view HttpResponse::Header(absl::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) return value;
  }
  return "";
}

HttpTransport& CurlTransport() {
  static HttpTransport& transport = *new Curl();
  return transport;
}

std::string PercentEncode(absl::string_view text, bool keep_slash) {
  std::string out;
  for (const char c : text) {
    if (absl::ascii_isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~' ||
        (c == '/' && keep_slash)) {
      out += c;
    } else {
      absl::StrAppendFormat(&out, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  return out;
}

std::string CanonicalQuery(const HttpRequest& request) {
  std::vector<std::string> parts;
  for (const auto& [name, value] : request.query)
    parts.push_back(absl::StrCat(PercentEncode(name, false), "=", PercentEncode(value, false)));
  std::sort(parts.begin(), parts.end());
  std::string out;
  for (const std::string& part : parts) absl::StrAppend(&out, out.empty() ? "" : "&", part);
  return out;
}

}  // namespace ll
