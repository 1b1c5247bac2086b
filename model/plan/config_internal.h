// Shared by config.cc and rope_config.cc only.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "model/plan/config.h"

namespace ll {

// "config.json FIELD: expected EXPECTED, found FOUND".
absl::Status ConfigError(absl::string_view field, absl::string_view expected,
                         absl::string_view found);

// Reads a number > min_exclusive into `out`; an absent or null field leaves `out` as it is.
absl::Status ReadReal(const nlohmann::json& from, const char* field, double min_exclusive,
                      double& out);

// Reads rope_theta and the scaling in either spelling.
absl::Status ReadRope(const nlohmann::json& raw, LlamaConfig& config);
void WriteRope(const LlamaConfig& config, nlohmann::json& out);

}  // namespace ll
