#include "base/store_uri.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file_name.h"

namespace ll {
namespace {

absl::Status BadUri(absl::string_view field, absl::string_view uri) {
  return MakeFieldError({field, "s3://BUCKET/PREFIX or a folder's absolute path",
                         absl::StrCat("\"", OneLine(uri.substr(0, 200)), "\"")});
}

// Lower-case letters, digits, '.', '-': it becomes part of a host's name and of a path.
bool IsBucketName(absl::string_view name) {
  if (name.size() < 3 || name.size() > 63) return false;
  for (const char c : name) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '.' && c != '-') return false;
  }
  return absl::ascii_isalnum(name.front()) && absl::ascii_isalnum(name.back()) &&
         !absl::StrContains(name, "..");
}

absl::string_view WithoutSlashes(absl::string_view text) {
  while (absl::ConsumeSuffix(&text, "/")) {
  }
  return text;
}

}  // namespace

bool IsObjectKey(absl::string_view key) {
  if (key.empty() || key.size() > 1000) return false;
  for (const absl::string_view part : absl::StrSplit(key, '/')) {
    if (!IsPlainFileName(part)) return false;
  }
  return true;
}

absl::StatusOr<StoreUri> ParseStoreUri(absl::string_view field, absl::string_view uri) {
  absl::string_view rest = uri;
  if (!absl::ConsumePrefix(&rest, "s3://")) {
    absl::ConsumePrefix(&rest, "file://");
    rest = WithoutSlashes(rest);
    if (!absl::StartsWith(rest, "/")) return BadUri(field, uri);
    return StoreUri{.folder = std::string(rest)};
  }
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(rest, absl::MaxSplits('/', 1));
  const absl::string_view prefix = WithoutSlashes(parts.second);
  if (!IsBucketName(parts.first)) {
    return MakeFieldError(
        {field, "a bucket's name behind s3://",
         absl::StrCat("\"", OneLine(std::string(parts.first.substr(0, 100))), "\"")});
  }
  if (!prefix.empty() && !IsObjectKey(prefix)) return BadUri(field, uri);
  return StoreUri{.bucket = std::string(parts.first), .prefix = std::string(prefix)};
}

}  // namespace ll
