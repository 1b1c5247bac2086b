#include "model/report/eval_report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/report/heat_map.h"

namespace ll {
namespace {

using Json = nlohmann::ordered_json;

std::string ValueText(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_number()) return value.dump();
  const double number = value.get<double>();
  if (std::floor(number) == number && std::fabs(number) < 1e15)
    return absl::StrFormat("%.0f", number);
  return absl::StrFormat("%.6g", number);
}

std::string Heading(absl::string_view key) {
  return absl::AsciiStrToUpper(absl::StrReplaceAll(key, {{"_", " "}}));
}

bool IsTable(const Json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const Json& row) { return row.is_object(); });
}

ReportTable TableOf(const std::string& key, const Json& list) {
  ReportTable table{key, {}, {}};
  for (const auto& [name, value] : list.front().items()) {
    if (!value.is_structured()) table.header.push_back(name);
  }
  for (const Json& item : list) {
    std::vector<std::string>& row = table.rows.emplace_back();
    for (const std::string& name : table.header)
      row.push_back(item.contains(name) ? ValueText(item[name]) : "");
  }
  for (std::string& name : table.header) name = Heading(name);
  return table;
}

// Cells of {length, depth, accuracy} as a matrix, depth by length.
struct Grid {
  std::vector<double> lengths, depths;
  std::vector<std::vector<std::optional<double>>> accuracy;  // [depth][length]
};

size_t IndexOf(std::vector<double>& values, double value) {
  const auto at = std::find(values.begin(), values.end(), value);
  if (at == values.end()) values.push_back(value);
  return static_cast<size_t>(std::find(values.begin(), values.end(), value) - values.begin());
}

std::optional<double> Number(const Json& object, const char* key) {
  if (!object.is_object()) return std::nullopt;
  const auto it = object.find(key);
  return it != object.end() && it->is_number() ? std::optional(it->get<double>()) : std::nullopt;
}

Grid GridOf(const Json& cells) {
  Grid grid;
  for (const Json& cell : cells) {
    const auto length = Number(cell, "length"), accuracy = Number(cell, "accuracy");
    if (!length || !accuracy) continue;
    const size_t column = IndexOf(grid.lengths, *length);
    const size_t row = IndexOf(grid.depths, Number(cell, "depth").value_or(-1));
    grid.accuracy.resize(std::max(grid.accuracy.size(), row + 1));
    for (auto& values : grid.accuracy) values.resize(grid.lengths.size());
    grid.accuracy[row][column] = *accuracy;
  }
  return grid;
}

std::string DepthText(double depth) {
  return depth < 0 ? "anywhere" : absl::StrFormat("%.0f%%", 100 * depth);
}

ReportTable GridTable(const std::string& key, const Json& cells) {
  const Grid grid = GridOf(cells);
  ReportTable table{absl::StrCat(key, ": accuracy by depth and length"), {"DEPTH"}, {}};
  for (const double length : grid.lengths) table.header.push_back(absl::StrFormat("%.0f", length));
  for (size_t r = 0; r < grid.depths.size(); ++r) {
    std::vector<std::string>& row = table.rows.emplace_back();
    row.push_back(DepthText(grid.depths[r]));
    for (const auto& value : grid.accuracy[r])
      row.push_back(value ? absl::StrFormat("%.2f", *value) : "");
  }
  return table;
}

void AddTo(const std::string& prefix, const Json& object, EvalReport& report) {
  for (const auto& [key, value] : object.items()) {
    const std::string name = prefix + key;
    if (value.is_object()) {
      AddTo(name + ".", value, report);
    } else if (IsTable(value)) {
      report.tables.push_back(key == "grid" ? GridTable(name, value) : TableOf(name, value));
    } else if (!value.is_structured()) {
      report.fields.emplace_back(name, ValueText(value));
    }
  }
}

void AppendAligned(const std::vector<std::vector<std::string>>& rows, std::string& out) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c)
      absl::StrAppend(&line, row[c], std::string(widths[c] - row[c].size() + 2, ' '));
    absl::StripTrailingAsciiWhitespace(&line);
    absl::StrAppend(&out, line, "\n");
  }
}

}  // namespace

EvalReport ReportOf(const Json& result) {
  EvalReport report;
  if (result.is_object()) AddTo("", result, report);
  return report;
}

std::string ReportText(const EvalReport& report) {
  std::string out;
  std::vector<std::vector<std::string>> fields;
  for (const auto& [key, value] : report.fields) fields.push_back({key, value});
  AppendAligned(fields, out);
  for (const ReportTable& table : report.tables) {
    absl::StrAppend(&out, "\n", table.title, "\n");
    std::vector<std::vector<std::string>> rows = {table.header};
    rows.insert(rows.end(), table.rows.begin(), table.rows.end());
    AppendAligned(rows, out);
  }
  return out;
}

absl::StatusOr<std::string> PasskeySvg(const Json& result) {
  const Json none = Json::array();
  const Json* cells = &none;
  for (const char* key : {"by_length", "grid"}) {
    if (result.is_object() && result.contains(key) && IsTable(result[key])) cells = &result[key];
  }
  const Grid grid = GridOf(*cells);
  if (grid.lengths.empty()) {
    return MakeFieldError({"--plot", "the result of a passkey evaluation", "none"});
  }
  HeatMap map{"Pass key retrieval", "prompt length (tokens)", "depth of the key", {}, {}, {}};
  for (const double length : grid.lengths) map.columns.push_back(absl::StrFormat("%.0f", length));
  for (const double depth : grid.depths) map.rows.push_back(DepthText(depth));
  map.values = grid.accuracy;
  return HeatMapSvg(map);
}

}  // namespace ll
