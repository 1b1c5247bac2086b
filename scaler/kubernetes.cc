#include "scaler/kubernetes.h"

#include <algorithm>
#include <climits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr absl::Duration kDeadline = absl::Seconds(10);
constexpr int64_t kMostAnswerBytes = 1 << 20;
constexpr int64_t kMostTokenBytes = 64 << 10;
// A server that asks for more is asked again all the same.
constexpr int kMostRetryAfterSeconds = 300;

// A refusal is a Status object, whose message says why; proxies answer what they like.
std::string MessageOf(const HttpResponse& response) {
  const auto object = ParseJsonObject(response.body);
  if (object.ok() && object->contains("message") && (*object)["message"].is_string())
    return OneLine((*object)["message"].get<std::string>());
  return absl::StrCat("status ", response.status);
}

absl::StatusOr<int> ReplicasOf(const nlohmann::json& object) {
  const auto spec = object.find("spec");
  if (spec == object.end() || !spec->is_object())
    return MakeFieldError({"scale", "an object with a spec", JsonExcerpt(object)});
  const auto replicas = spec->find("replicas");
  if (replicas == spec->end()) return 0;  // as Kubernetes writes 0
  if (!replicas->is_number_integer() || *replicas < 0 || *replicas > INT_MAX)
    return MakeFieldError({"scale.spec.replicas", "a number of pods", JsonExcerpt(*replicas)});
  return replicas->get<int>();
}

}  // namespace

absl::StatusOr<HttpResponse> StatefulSetScale::Send(const std::string& method,
                                                    absl::string_view body) {
  HttpRequest request;
  request.method = method;
  request.scheme_host = address_.server;
  request.path =
      absl::StrCat("/apis/apps/v1/namespaces/", PercentEncode(address_.name_space, false),
                   "/statefulsets/", PercentEncode(address_.name, false), "/scale");
  request.headers = {{"Accept", "application/json"}, {"User-Agent", "ll-scaler"}};
  request.body = body;
  request.ca_file = address_.ca_file;
  request.timeout = kDeadline;
  request.max_response_bytes = kMostAnswerBytes;
  if (!body.empty()) request.headers.emplace_back("Content-Type", "application/json");
  if (absl::StartsWith(address_.server, "https://")) {
    LL_ASSIGN_OR_RETURN(const std::string token,
                        ReadPlainFile(address_.token_file, kMostTokenBytes));
    request.headers.emplace_back("Authorization",
                                 absl::StrCat("Bearer ", absl::StripAsciiWhitespace(token)));
  }
  retry_after_ = absl::ZeroDuration();
  absl::StatusOr<HttpResponse> response = http_.Send(request);
  if (!response.ok()) {
    return FieldStatus(
        response.status().code(), "statefulset",
        absl::StrCat("the API server at ", address_.server, ": ", response.status().message()),
        "see --api-server, and whether a network policy lets it through");
  }
  int seconds = 0;
  if (absl::SimpleAtoi(response->Header("retry-after"), &seconds))
    retry_after_ = absl::Seconds(std::clamp(seconds, 0, kMostRetryAfterSeconds));
  return response;
}

absl::Status StatefulSetScale::Explain(const HttpResponse& response) const {
  const std::string what = absl::StrCat("the API server: ", MessageOf(response));
  const auto error = [&](absl::StatusCode code, absl::string_view hint) {
    return FieldStatus(code, "statefulset", what, hint);
  };
  switch (response.status) {
    case 401:
      return error(absl::StatusCode::kUnauthenticated,
                   absl::StrCat("is the token in ", address_.token_file, " still good?"));
    case 403:
      return error(absl::StatusCode::kPermissionDenied,
                   "its Role needs get and update of statefulsets/scale");
    case 404:
      return error(absl::StatusCode::kNotFound, "see --namespace and --statefulset");
    case 409:
      return error(absl::StatusCode::kAborted, "");
    case 408:
    case 410:
    case 429:
      return error(absl::StatusCode::kUnavailable, "");
    default:
      return error(response.status >= 500 ? absl::StatusCode::kUnavailable
                                          : absl::StatusCode::kFailedPrecondition,
                   "");
  }
}

absl::StatusOr<Scale> StatefulSetScale::Get() {
  LL_ASSIGN_OR_RETURN(const HttpResponse response, Send("GET", ""));
  if (response.status != 200) return Explain(response);
  Scale scale;
  absl::StatusOr<nlohmann::json> object = ParseJsonObject(response.body);
  if (!object.ok()) return Annotate(object.status(), "the API server's scale");
  scale.object = *std::move(object);
  LL_ASSIGN_OR_RETURN(scale.replicas, ReplicasOf(scale.object));
  return scale;
}

absl::Status StatefulSetScale::Set(const Scale& scale, int replicas) {
  nlohmann::json object = scale.object;
  object["spec"]["replicas"] = replicas;
  const std::string body = object.dump();
  const absl::StatusOr<HttpResponse> response = Send("PUT", body);
  // Cut off or out of time: the change may have arrived. A certificate is looked at before.
  if (absl::IsUnavailable(response.status()) || absl::IsResourceExhausted(response.status()))
    return absl::UnknownError(response.status().message());
  LL_RETURN_IF_ERROR(response.status());
  if (response->status == 200 || response->status == 201) return absl::OkStatus();
  const absl::Status status = Explain(*response);
  return response->status >= 500 ? absl::UnknownError(status.message()) : status;
}

}  // namespace ll
