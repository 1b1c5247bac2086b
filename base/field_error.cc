#include "base/field_error.h"

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace ll {
namespace {
constexpr char kField[] = "ll/field";
constexpr char kHint[] = "ll/hint";

std::string Payload(const absl::Status& status, const char* url) {
  auto payload = status.GetPayload(url);
  return payload ? std::string(*payload) : std::string();
}

void CopyPayloads(const absl::Status& from, absl::Status& to) {
  from.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& value) { to.SetPayload(url, value); });
}
}  // namespace

std::string OneLine(absl::string_view text) {
  constexpr size_t kMaxBytes = 1000;
  std::string out(text.substr(0, kMaxBytes));
  if (text.size() > kMaxBytes) out += "…";
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < ' ' || c == 127) c = '?';
  }
  return out;
}

absl::Status OneLine(const absl::Status& status) {
  if (status.ok()) return status;
  absl::Status out(status.code(), OneLine(status.message()));
  CopyPayloads(status, out);
  return out;
}

absl::Status FieldStatus(absl::StatusCode code, absl::string_view field, absl::string_view message,
                         absl::string_view hint) {
  std::string text = OneLine(message);
  // A sentence that was made here before already has them.
  const std::string front = absl::StrCat(OneLine(field), ": ");
  if (!field.empty() && !absl::StartsWith(text, front)) text.insert(0, front);
  if (!hint.empty() && !absl::EndsWith(text, hint)) absl::StrAppend(&text, "; ", hint);
  absl::Status status(code, text);
  SetErrorField(status, field);
  SetErrorHint(status, hint);
  return status;
}

absl::Status MakeFieldError(const FieldError& error, absl::StatusCode code) {
  return FieldStatus(code, error.field,
                     absl::StrCat("expected ", error.expected, ", found ", error.found),
                     error.hint);
}

std::string ErrorField(const absl::Status& status) { return Payload(status, kField); }
std::string ErrorHint(const absl::Status& status) { return Payload(status, kHint); }

void SetErrorField(absl::Status& status, absl::string_view field) {
  if (!field.empty()) status.SetPayload(kField, absl::Cord(field));
}
void SetErrorHint(absl::Status& status, absl::string_view hint) {
  if (!hint.empty()) status.SetPayload(kHint, absl::Cord(hint));
}

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  absl::Status out(status.code(), absl::StrCat(OneLine(context), ": ", status.message()));
  CopyPayloads(status, out);
  return out;
}

}  // namespace ll
