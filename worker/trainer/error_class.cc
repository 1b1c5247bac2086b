#include "worker/trainer/error_class.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace ll {
namespace {
constexpr char kClassPayload[] = "ll.error_class", kCausePayload[] = "ll.caused_by_rank";
constexpr ErrorClass kAllClasses[] = {ErrorClass::kUser, ErrorClass::kInfrastructure,
                                      ErrorClass::kCapacity, ErrorClass::kOutOfMemory,
                                      ErrorClass::kNotANumber};
}  // namespace

absl::string_view ErrorClassName(ErrorClass error_class) {
  switch (error_class) {
    case ErrorClass::kUser:
      return "user";
    case ErrorClass::kInfrastructure:
      return "infrastructure";
    case ErrorClass::kCapacity:
      return "capacity";
    case ErrorClass::kOutOfMemory:
      return "oom";
    case ErrorClass::kNotANumber:
      return "nan";
  }
  return "infrastructure";
}

int ExitCodeOf(ErrorClass error_class) {
  switch (error_class) {
    case ErrorClass::kUser:
      return 20;
    case ErrorClass::kInfrastructure:
      return 30;
    case ErrorClass::kCapacity:
      return 31;
    case ErrorClass::kOutOfMemory:
      return 40;
    case ErrorClass::kNotANumber:
      return 50;
  }
  return 30;
}

absl::Status WithErrorClass(absl::Status status, ErrorClass error_class) {
  if (!status.ok()) status.SetPayload(kClassPayload, absl::Cord(ErrorClassName(error_class)));
  return status;
}

absl::Status CausedByRank(absl::Status status, int rank) {
  if (!status.ok()) status.SetPayload(kCausePayload, absl::Cord(absl::StrCat(rank)));
  return WithErrorClass(std::move(status), ErrorClass::kInfrastructure);
}

std::optional<int> CausingRankOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kCausePayload);
  int rank = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &rank)) return std::nullopt;
  return rank;
}

ErrorClass ErrorClassOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kClassPayload);
  if (payload.has_value()) {
    for (const ErrorClass candidate : kAllClasses) {
      if (*payload == ErrorClassName(candidate)) return candidate;
    }
  }
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return ErrorClass::kUser;
    case absl::StatusCode::kResourceExhausted:
      return ErrorClass::kOutOfMemory;
    default:
      return ErrorClass::kInfrastructure;
  }
}

}  // namespace ll
