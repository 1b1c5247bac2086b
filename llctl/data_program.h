// The data half of llctl: a program of its own, beside this one
// (docs/decisions/006-data-program.md).
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace ll {

struct DataProgramResult {
  nlohmann::ordered_json value;
  std::string text;  // the same for people
};

// Runs `ll-data ARGUMENTS`, its talk on this process's stderr. Errors: its own, with field and
// hint; the program is missing or died.
absl::StatusOr<DataProgramResult> RunDataProgram(const std::vector<std::string>& arguments);

}  // namespace ll
