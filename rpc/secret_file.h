// Files that rights depend on: one with a bearer token, and those that say who may do what.
// Thread-safe functions.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

// The one token that a file of a client holds (`--token-file`), without blanks around it. Errors,
// none of which repeats the token: the file's own; FailedPrecondition (field "token-file"):
// everybody on this host may read it; InvalidArgument: it holds no token.
absl::StatusOr<std::string> ReadBearerToken(const std::string& path);

// Whether a token can stand in a call's metadata: 1 to 16,384 printable ASCII characters without
// blanks. InvalidArgument (field "token") otherwise, without the token.
absl::Status CheckBearerToken(absl::string_view token);

// FailedPrecondition (`field`) for a file that everybody on this host may write: what it says of
// rights would be anybody's word. OK where there is no such file; others say so.
absl::Status CheckNotForAllToWrite(const std::string& path, absl::string_view field);

}  // namespace ll
