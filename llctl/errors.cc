#include "llctl/errors.h"

#include <algorithm>

#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/terminal_text.h"
#include "nlohmann/json.hpp"

namespace ll {

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitSuccess;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kExitUsage;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnimplemented:
      return kExitRefused;
    case absl::StatusCode::kUnavailable:
      return kExitUnavailable;
    case absl::StatusCode::kDeadlineExceeded:
      return kExitTimeout;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return kExitDenied;
    case absl::StatusCode::kCancelled:
      return kExitCancelled;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return kExitConflict;
    default:
      return kExitJobFailed;
  }
}

int ExitCodeOf(v1::JobState state) {
  if (state == v1::FAILED) return kExitJobFailed;
  if (state == v1::CANCELLED) return kExitCancelled;
  return kExitSuccess;
}

bool HasEnded(v1::JobState state) {
  return state == v1::SUCCEEDED || state == v1::FAILED || state == v1::CANCELLED;
}

absl::Status AsUsageError(const absl::Status& status) {
  if (status.ok()) return status;
  absl::Status out(absl::StatusCode::kInvalidArgument, status.message());
  SetErrorField(out, ErrorField(status));
  SetErrorHint(out, ErrorHint(status));
  return out;
}

void PrintError(const absl::Status& status, bool json, std::ostream& err) {
  if (json) {
    const nlohmann::ordered_json object = {{"code", absl::StatusCodeToString(status.code())},
                                           {"field", ErrorField(status)},
                                           {"message", std::string(status.message())},
                                           {"hint", ErrorHint(status)}};
    err << object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n";
    return;
  }
  // One error, one line: scripts and logs keep it together. A hint of several lines holds commands
  // to paste, which follow.
  const std::string hint = ErrorHint(status);
  absl::string_view message = status.message();
  const bool lines = hint.find('\n') != std::string::npos && absl::ConsumeSuffix(&message, hint);
  if (lines) absl::ConsumeSuffix(&message, "; ");
  err << "llctl: error: " << Shown(absl::StrReplaceAll(message, {{"\n", " "}})) << "\n";
  if (lines) err << Shown(hint, /*lines=*/true) << "\n";
}

}  // namespace ll
