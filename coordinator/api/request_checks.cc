#include "coordinator/api/request_checks.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"

namespace ll {
namespace {

constexpr size_t kMaxSpecBytes = 256 << 10;
constexpr size_t kMaxNameBytes = 64;
constexpr int kMaxUserPriority = 100;

}  // namespace

absl::Status CheckPlainName(absl::string_view field, const std::string& name) {
  constexpr char kAllowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (!name.empty() && name.size() <= kMaxNameBytes &&
      name.find_first_not_of(kAllowed) == std::string::npos)
    return absl::OkStatus();
  return MakeFieldError({field, "1 to 64 letters, digits, '.', '_' or '-'",
                         absl::StrCat("\"", OneLine(name.substr(0, 80)), "\"")});
}

absl::Status CheckRequestId(const std::string& id, size_t max_bytes) {
  if (id.size() > max_bytes) {
    return MakeFieldError({"request_id", absl::StrCat("at most ", max_bytes, " characters"),
                           absl::StrCat(id.size())});
  }
  if (std::any_of(id.begin(), id.end(), [](unsigned char c) { return c < 0x21 || c > 0x7e; }))
    return MakeFieldError({"request_id", "printable characters without spaces", "others"});
  return absl::OkStatus();
}

absl::Status CheckPriority(const v1::JobSpec& spec, bool admin) {
  if (admin || (spec.priority() >= 0 && spec.priority() <= kMaxUserPriority))
    return absl::OkStatus();
  return FieldStatus(absl::StatusCode::kPermissionDenied, "priority",
                     absl::StrCat("expected 0 to ", kMaxUserPriority, ", found ", spec.priority()),
                     "ask an administrator for others");
}

absl::Status CheckQueue(const v1::JobSpec& spec, const std::vector<std::string>& queues) {
  if (queues.empty() || std::find(queues.begin(), queues.end(), spec.queue()) != queues.end())
    return absl::OkStatus();
  return FieldStatus(absl::StatusCode::kPermissionDenied, "queue",
                     absl::StrCat("your tenant's jobs wait in ", absl::StrJoin(queues, ", "),
                                  ", not in ", OneLine(spec.queue().substr(0, 80))),
                     "leave it out, or name one of these");
}

absl::Status CheckSpecSize(const v1::JobSpec& spec) {
  if (spec.ByteSizeLong() <= kMaxSpecBytes) return absl::OkStatus();
  return MakeFieldError({"spec", "at most 256 KiB", absl::StrCat(spec.ByteSizeLong(), " bytes")});
}

}  // namespace ll
