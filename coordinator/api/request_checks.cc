#include "coordinator/api/request_checks.h"

#include <google/protobuf/util/field_mask_util.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"

namespace ll {
namespace {

constexpr size_t kMaxSpecBytes = 256 << 10;
constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxJobNameBytes = 256;
constexpr int kMaxLabels = 64;
constexpr size_t kMaxLabelKeyBytes = 128;
constexpr size_t kMaxLabelBytes = 1024;
constexpr int kMaxUserPriority = 100;
constexpr int kMaxMaskPaths = 100;

bool IsWhole(const google::protobuf::FieldMask& mask) {
  return mask.paths().empty() || (mask.paths_size() == 1 && mask.paths(0) == "*");
}

absl::Status CheckText(absl::string_view field, absl::string_view what, const std::string& text,
                       size_t most) {
  const bool control = std::any_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_iscntrl(static_cast<unsigned char>(c));
  });
  if (text.size() <= most && !control) return absl::OkStatus();
  return MakeFieldError({field,
                         absl::StrCat(what, "at most ", most, " bytes without control characters"),
                         control ? absl::StrCat("\"", OneLine(text.substr(0, 80)), "\"")
                                 : absl::StrCat(text.size(), " bytes")});
}

}  // namespace

absl::Status CheckPlainName(absl::string_view field, const std::string& name) {
  constexpr char kAllowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (!name.empty() && name.size() <= kMaxNameBytes &&
      name.find_first_not_of(kAllowed) == std::string::npos)
    return absl::OkStatus();
  return MakeFieldError({field, "1 to 64 letters, digits, '.', '_' or '-'",
                         absl::StrCat("\"", OneLine(name.substr(0, 80)), "\"")});
}

absl::Status CheckTexts(const v1::JobSpec& spec) {
  if (absl::Status good = CheckText("name", "", spec.name(), kMaxJobNameBytes); !good.ok())
    return good;
  if (spec.labels_size() > kMaxLabels) {
    return MakeFieldError(
        {"labels", absl::StrCat("at most ", kMaxLabels), absl::StrCat(spec.labels_size())});
  }
  for (const auto& [key, value] : spec.labels()) {
    absl::Status good = CheckText("labels", "keys of ", key, kMaxLabelKeyBytes);
    if (good.ok()) good = CheckText("labels", "values of ", value, kMaxLabelBytes);
    if (!good.ok()) return good;
  }
  return absl::OkStatus();
}

absl::Status CheckReadMask(const google::protobuf::FieldMask& mask,
                           const google::protobuf::Descriptor& message) {
  if (IsWhole(mask)) return absl::OkStatus();
  if (mask.paths_size() > kMaxMaskPaths) {
    return MakeFieldError({"read_mask", absl::StrCat("at most ", kMaxMaskPaths, " paths"),
                           absl::StrCat(mask.paths_size())});
  }
  for (const std::string& path : mask.paths()) {
    // The library passes over empty parts.
    const bool whole = !path.empty() && path.front() != '.' && path.back() != '.' &&
                       path.find("..") == std::string::npos;
    if (whole &&
        google::protobuf::util::FieldMaskUtil::GetFieldDescriptors(&message, path, nullptr))
      continue;
    return MakeFieldError(
        {"read_mask",
         absl::StrCat("fields of ", std::string(message.name()), ", as state or progress.step"),
         absl::StrCat("\"", OneLine(path.substr(0, 80)), "\"")});
  }
  return absl::OkStatus();
}

void ApplyReadMask(const google::protobuf::FieldMask& mask, google::protobuf::Message& message) {
  if (!IsWhole(mask)) google::protobuf::util::FieldMaskUtil::TrimMessage(mask, &message);
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
