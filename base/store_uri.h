// Where an object store is, as a spec or a flag names it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

struct StoreUri {
  std::string bucket, prefix;  // of s3://BUCKET[/PREFIX], the prefix without slashes at its ends
  std::string folder;          // of a path or file://PATH, else empty
};

// Errors (InvalidArgument) name `field`, the key or flag that holds the URI: another scheme, a
// relative path, a bucket's name that is none, a prefix that is no relative path of plain names.
absl::StatusOr<StoreUri> ParseStoreUri(absl::string_view field, absl::string_view uri);

// Whether `key` is a relative path of plain names, at most 1000 bytes.
bool IsObjectKey(absl::string_view key);

}  // namespace ll
