#include "rpc/open_page.h"

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "rpc/channel.h"

namespace ll {

absl::Status CheckOpenPage(absl::string_view http, bool http_public) {
  LL_ASSIGN_OR_RETURN(const HostPort parts, ParseHostPort(http, "http"));
  if (http_public || IsLoopbackHost(parts.host)) return absl::OkStatus();
  return FieldStatus(
      absl::StatusCode::kFailedPrecondition, "http",
      absl::StrCat(http, " is not on loopback, and this page has neither TLS nor authentication"),
      "bind 127.0.0.1, or add --http-public where the network lets only Prometheus and probes "
      "reach it");
}

}  // namespace ll
