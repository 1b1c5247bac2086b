#include "llctl/output.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/format.h"
#include "base/terminal_text.h"
#include "llctl/proto_json.h"
#include "llctl/terminal_text.h"

namespace ll {
namespace {

constexpr char kBold[] = "\033[1m";
constexpr char kPlain[] = "\033[0m";

const char* StateColor(absl::string_view state) {
  if (state == "SUCCEEDED") return "\033[32m";
  if (state == "FAILED") return "\033[31m";
  if (state == "RUNNING" || state == "STARTING" || state == "FINISHING") return "\033[36m";
  if (state == "CANCELLED" || state == "CANCELLING") return "\033[90m";
  if (state == "RETRYING" || state == "PAUSED" || state == "PREEMPTING") return "\033[33m";
  return nullptr;
}

void EmitYaml(YAML::Emitter& out, const nlohmann::ordered_json& value) {
  if (value.is_object() && value.empty()) {
    out << YAML::Flow << YAML::BeginMap << YAML::EndMap;
  } else if (value.is_array() && value.empty()) {
    out << YAML::Flow << YAML::BeginSeq << YAML::EndSeq;
  } else if (value.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [key, item] : value.items()) {
      out << YAML::Key << key << YAML::Value;
      EmitYaml(out, item);
    }
    out << YAML::EndMap;
  } else if (value.is_array()) {
    out << YAML::BeginSeq;
    for (const auto& item : value) EmitYaml(out, item);
    out << YAML::EndSeq;
  } else if (value.is_string()) {
    // Quoted, so that "no", "1e5" or a time stays the text that it is.
    out << YAML::DoubleQuoted << value.get<std::string>();
  } else {
    out << value.dump();
  }
}

}  // namespace

std::string JsonToYaml(const nlohmann::ordered_json& value) {
  YAML::Emitter out;
  EmitYaml(out, value);
  return absl::StrCat(out.c_str(), "\n");
}

void Table::Add(const std::vector<std::string>& row) {
  std::vector<std::string>& added = rows_.emplace_back();
  for (const std::string& cell : row) added.push_back(Shown(cell));
}

std::vector<std::string> Table::Lines(int width, bool color) const {
  std::ostringstream out;
  Print(out, width, color);
  std::vector<std::string> lines = absl::StrSplit(out.str(), '\n');
  lines.pop_back();  // behind the last newline
  return lines;
}

void Table::Print(std::ostream& out, int width, bool color) const {
  std::vector<size_t> widths(rows_[0].size(), 0);
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], TextColumns(row[i]));
  }
  for (size_t r = 0; r < rows_.size(); ++r) {
    std::string line;
    size_t used = 0;
    for (size_t i = 0; i < rows_[r].size(); ++i) {
      const bool last = i + 1 == rows_[r].size();
      absl::string_view cell = rows_[r][i];
      std::string cut;
      if (last && width > 0) {
        cut = CutToColumns(cell, static_cast<size_t>(width) > used ? width - used : 1);
        cell = cut;
      }
      const char* paint = !color ? nullptr : r == 0 ? kBold : StateColor(cell);
      absl::StrAppend(&line, paint ? paint : "", cell, paint ? kPlain : "");
      if (last) continue;
      line.append(widths[i] - TextColumns(cell) + 2, ' ');
      used += widths[i] + 2;
    }
    out << absl::StripTrailingAsciiWhitespace(line) << "\n";
  }
}

void Output::PrintValue(const nlohmann::ordered_json& value) {
  if (format_ == OutputFormat::kYaml) {
    out_ << JsonToYaml(value);
  } else {
    out_ << value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n";
  }
  out_.flush();
}

void Output::PrintJsonLine(const nlohmann::ordered_json& value) {
  out_ << value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n";
  out_.flush();
}

std::string Output::Foreign(absl::string_view text) const {
  return terminal_ ? Shown(text, /*lines=*/true) : std::string(text);
}

void Output::PrintFields(const std::vector<std::pair<std::string, std::string>>& fields) {
  size_t width = 0;
  for (const auto& [key, value] : fields) width = std::max(width, key.size());
  for (const auto& [key, value] : fields) {
    const std::string separator = absl::StrCat("\n", std::string(width + 2, ' '));
    const std::string shown = Shown(value, /*lines=*/true, color_);
    const absl::string_view trimmed = absl::StripTrailingAsciiWhitespace(shown);
    out_ << (color_ ? kBold : "") << key << (color_ ? kPlain : "")
         << std::string(width - key.size() + 2, ' ')
         << absl::StrJoin(absl::StrSplit(trimmed, '\n'), separator) << "\n";
  }
  out_.flush();
}

std::string Output::State(v1::JobState state) const { return StateText(state, color_); }

std::string StateText(v1::JobState state, bool color) {
  const std::string name = v1::JobState_Name(state);
  const char* paint = color ? StateColor(name) : nullptr;
  return paint ? absl::StrCat(paint, name, kPlain) : name;
}

std::string StepText(const v1::Progress& progress) {
  if (progress.step() == 0 && progress.max_steps() == 0) return "";
  if (progress.max_steps() == 0) return absl::StrCat(progress.step());
  return absl::StrCat(progress.step(), "/", progress.max_steps());
}

std::string SizeText(const v1::Job& job) {
  const v1::JobSpec& spec = job.has_resolved_spec() ? job.resolved_spec() : job.spec();
  const int64_t fewest = spec.has_gpus() ? spec.gpus() : 1;
  if (spec.max_gpus() <= fewest) return absl::StrCat(fewest);
  const std::string range = absl::StrCat(fewest, "-", spec.max_gpus());
  return job.workers().empty() ? range : absl::StrCat(job.workers_size(), " of ", range);
}

std::string LossText(const v1::Progress& progress) {
  return progress.step() == 0 ? "" : absl::StrFormat("%.4f", progress.loss());
}

std::string SpeedText(double tokens_per_second) {
  if (!(tokens_per_second > 0)) return "";
  if (tokens_per_second < 10) return absl::StrFormat("%.2f", tokens_per_second);
  return HumanCount(static_cast<int64_t>(tokens_per_second + 0.5));
}

std::optional<absl::Duration> Eta(const v1::Progress& progress) {
  const int64_t left = progress.max_steps() - progress.step();
  if (progress.step() == 0 || left <= 0 || !(progress.step_seconds() > 0)) return std::nullopt;
  return absl::Seconds(progress.step_seconds() * static_cast<double>(left));
}

std::string AgeText(const google::protobuf::Timestamp& since, absl::Time now) {
  if (since.seconds() == 0) return "";
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(now - ToTime(since)));
  return seconds < 60 ? absl::StrCat(seconds, "s") : HumanDuration(absl::Seconds(seconds));
}

std::string ForecastText(const v1::Forecast& forecast) {
  std::vector<std::string> parts;
  if (!forecast.explanation().empty()) {
    parts.push_back(forecast.explanation());  // tells the memory too
  } else if (forecast.bytes_per_rank() > 0) {
    std::string memory = absl::StrCat(HumanBytes(forecast.bytes_per_rank()), " a rank");
    if (forecast.available_bytes_per_slot() > 0) {
      absl::StrAppend(&memory, " of ", HumanBytes(forecast.available_bytes_per_slot()), " a slot");
    }
    parts.push_back(memory);
  }
  if (forecast.tokens_per_second() > 0) {
    parts.push_back(absl::StrCat(SpeedText(forecast.tokens_per_second()), " tokens/s"));
  }
  if (forecast.duration_seconds() > 0) {
    parts.push_back(HumanDuration(absl::Seconds(forecast.duration_seconds())));
  }
  return absl::StrJoin(parts, ", ");
}

std::string SpecText(const v1::JobSpec& spec) {
  const nlohmann::ordered_json all = ProtoToJson(spec);
  nlohmann::ordered_json given;
  for (const auto& [key, value] : all.items()) {
    if (!value.is_structured() || !value.empty()) given[key] = value;
  }
  return JsonToYaml(given);
}

std::string JobLine(const v1::Job& job, const Output& output) {
  std::string line = absl::StrCat(job.job_id(), " ", output.State(job.state()));
  if (!job.reason().empty()) absl::StrAppend(&line, ": ", Shown(job.reason()));
  return line;
}

}  // namespace ll
