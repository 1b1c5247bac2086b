// Where pages may be bound that have neither TLS nor authentication.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ll {

// `http`, a flag's HOST:PORT, is on loopback, or `http_public` allows any. Else InvalidArgument or
// FailedPrecondition, with the field "http".
absl::Status CheckOpenPage(absl::string_view http, bool http_public);

}  // namespace ll
