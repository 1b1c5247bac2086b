// The XML that S3 answers with. Answers are hostile like every input: bad XML is an error.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/object_store.h"

namespace ll {

struct S3Page {
  std::vector<ObjectInfo> objects;  // with their full keys
  std::string continuation;         // empty: the last page
};
absl::StatusOr<S3Page> ParseListing(const std::string& xml);

struct S3UploadsPage {
  std::vector<std::pair<std::string, std::string>> uploads;  // full key and upload id
  std::string next_key, next_upload;  // markers of the next page; no key: the last page
};
// Unfinished uploads.
absl::StatusOr<S3UploadsPage> ParseUploads(const std::string& xml);

// What an unfinished upload has already.
struct S3Part {
  int number = 0;  // from 1
  int64_t size_bytes = 0;
  std::string etag, checksum_sha256;  // as the store tells them; the checksum may be empty
};
struct S3PartsPage {
  std::vector<S3Part> parts;
  std::string next_marker;  // empty: the last page
};
absl::StatusOr<S3PartsPage> ParseParts(const std::string& xml);

absl::StatusOr<std::string> ParseUploadId(const std::string& xml);

// What an <Error> document says; empty code where the text is none.
struct S3Error {
  std::string code, message;
};
S3Error ParseError(const std::string& xml);

// The body of CompleteMultipartUpload: ETag and base64 SHA-256 of the parts, in order.
std::string CompletionXml(const std::vector<std::pair<std::string, std::string>>& parts);

}  // namespace ll
