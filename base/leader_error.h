// The error of a coordinator that does not lead: which one to ask instead.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ll {

// "HOST:PORT", or "none" where nobody leads at the moment; empty: the status says nothing of that.
std::string ErrorLeader(const absl::Status& status);
void SetErrorLeader(absl::Status& status, absl::string_view leader);

}  // namespace ll
