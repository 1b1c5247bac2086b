// One exchange with the store: how it is addressed and signed, what its answer means, and when it
// is tried again.
#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "storage/s3_store.h"
#include "storage/sigv4.h"

namespace ll {
namespace {

constexpr absl::Duration kLongestSleep = absl::Milliseconds(200);  // until a Cancel is seen

bool MayWorkLater(int status, const S3Error& error) {
  return status == 408 || status == 429 || status >= 500 || error.code == "RequestTimeout" ||
         error.code == "SlowDown" || error.code == "ConditionalRequestConflict";
}

absl::StatusCode CodeOf(int status, const S3Error& error) {
  if (error.code == "BadDigest" || error.code == "XAmzContentSHA256Mismatch" ||
      error.code == "InvalidDigest") {
    return absl::StatusCode::kDataLoss;
  }
  if (MayWorkLater(status, error)) return absl::StatusCode::kUnavailable;
  switch (status) {
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kNotFound;
    case 412:
      return absl::StatusCode::kAlreadyExists;
    case 507:
      return absl::StatusCode::kResourceExhausted;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::Status StatusOf(const HttpResponse& response) {
  const S3Error error = ParseError(response.body);
  // "200 OK" with an error in its body is how a long CompleteMultipartUpload fails.
  if (response.status < 300 && error.code.empty()) return absl::OkStatus();
  const absl::StatusCode code =
      response.status < 300 ? absl::StatusCode::kUnavailable : CodeOf(response.status, error);
  return absl::Status(
      code, absl::StrCat("HTTP ", response.status, error.code.empty() ? "" : " ", error.code,
                         error.message.empty() ? "" : ": ", error.message));
}

}  // namespace

std::string S3Store::FullKey(const std::string& key) const {
  return options_.prefix.empty() ? key : absl::StrCat(options_.prefix, "/", key);
}

HttpRequest S3Store::BucketRequest() const {
  HttpRequest request;
  request.scheme_host = options_.endpoint.scheme_host;
  request.path = absl::StrCat(PercentEncode(options_.endpoint.path_prefix, true), "/");
  request.ca_file = options_.config.ca_file;
  return request;
}

HttpRequest S3Store::ObjectRequest(const char* method, const std::string& key) const {
  HttpRequest request = BucketRequest();
  request.method = method;
  absl::StrAppend(&request.path, PercentEncode(FullKey(key), /*keep_slash=*/true));
  return request;
}

absl::Status S3Store::Pause(absl::Duration pause) {
  for (;;) {
    if (cancelled_) return absl::CancelledError(absl::StrCat(uri_, ": cancelled"));
    if (pause <= absl::ZeroDuration()) return absl::OkStatus();
    const absl::Duration piece = std::min(pause, kLongestSleep);
    clock_.Sleep(piece);
    pause -= piece;
  }
}

absl::StatusOr<HttpResponse> S3Store::Send(HttpRequest request, const std::string& what) {
  const absl::Duration end = clock_.Steady() + options_.config.deadline;
  const auto headers = request.headers;
  const std::string hash = Sha256Hex(request.body);
  absl::Duration pause = options_.first_pause;
  request.cancelled = &cancelled_;
  LL_RETURN_IF_ERROR(Pause(absl::ZeroDuration()));
  for (int tries = 1;; ++tries) {
    request.headers = headers;
    SignV4(request, hash, options_.config.credentials, options_.config.region, clock_.Now());
    request.timeout = std::min(absl::Minutes(2), end - clock_.Steady());
    auto response = transport_.Send(request);
    absl::Status status = response.status();
    absl::Duration wanted = absl::ZeroDuration();
    if (response.ok()) {
      status = StatusOf(*response);
      if (status.ok() || (request.method == "DELETE" && response->status == 404)) return response;
      int64_t seconds = 0;
      if (absl::SimpleAtoi(response->Header("retry-after"), &seconds) && seconds > 0)
        wanted = absl::Seconds(std::min<int64_t>(seconds, 3600));
    }
    const absl::Status told = Annotate(status, absl::StrCat(uri_, ": cannot ", what));
    if (!absl::IsUnavailable(status)) return told;
    // Somewhere in the pause, so that many ranks do not come back at one moment.
    const absl::Duration rest =
        std::max(wanted, pause * (static_cast<double>(random_.Next() >> 11) * 0x1p-53));
    if (clock_.Steady() + rest >= end) {
      return absl::Status(absl::StatusCode::kDeadlineExceeded,
                          absl::StrCat(std::string(told.message()), " (", tries, " tries in ",
                                       absl::FormatDuration(options_.config.deadline), ")"));
    }
    LL_RETURN_IF_ERROR(Pause(rest));
    pause = std::min(pause * 2, options_.longest_pause);
  }
}

absl::StatusOr<HttpResponse> S3Store::SendPage(HttpRequest request, const std::string& what,
                                               absl::Duration began) {
  if (clock_.Steady() - began < options_.listing_deadline) return Send(std::move(request), what);
  return absl::DeadlineExceededError(absl::StrCat(uri_, ": cannot ", what,
                                                  ": there are still more pages after ",
                                                  absl::FormatDuration(options_.listing_deadline)));
}

}  // namespace ll
