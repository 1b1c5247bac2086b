// The result of an evaluation (ll-trainer's JSON, also in a job's `result`) for people: fields,
// tables, and a heat map of pass key retrieval. Torch-free; ll-trainer and llctl print the same.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace ll {

struct ReportTable {
  std::string title;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
};

struct EvalReport {
  std::vector<std::pair<std::string, std::string>> fields;
  std::vector<ReportTable> tables;
};

// Plain values become fields, objects fields named "outer.inner", lists of objects tables with a
// column a key; `grid` becomes depths by lengths. What has another shape is left out.
EvalReport ReportOf(const nlohmann::ordered_json& result);

// Aligned columns: fields first, then the tables.
std::string ReportText(const EvalReport& report);

// An SVG of the accuracies by length and depth; a result without `grid` is one row. InvalidArgument
// where `result` is not that of a passkey evaluation.
absl::StatusOr<std::string> PasskeySvg(const nlohmann::ordered_json& result);

}  // namespace ll
