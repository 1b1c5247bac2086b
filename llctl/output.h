// What llctl prints: data on stdout in one of four formats. Talk and errors go to stderr elsewhere.
#pragma once

#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/timestamp.pb.h"
#include "nlohmann/json.hpp"
#include "proto/job.pb.h"

namespace ll {

enum class OutputFormat { kTable, kJson, kYaml, kName };

std::string JsonToYaml(const nlohmann::ordered_json& value);

// Aligned columns for people: the last one is cut where the terminal ends.
class Table {
 public:
  explicit Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }
  void Add(const std::vector<std::string>& row);
  // `width` 0: no limit. With `color`, the header is bold and job states have their colour.
  void Print(std::ostream& out, int width, bool color) const;
  std::vector<std::string> Lines(int width, bool color) const;
  size_t rows() const { return rows_.size() - 1; }

 private:
  std::vector<std::vector<std::string>> rows_;
};

class Output {
 public:
  Output(std::ostream& out, OutputFormat format, bool terminal, bool color, int width)
      : out_(out), format_(format), terminal_(terminal), color_(color), width_(width) {}

  OutputFormat format() const { return format_; }
  bool is_table() const { return format_ == OutputFormat::kTable; }
  bool terminal() const { return terminal_; }
  bool color() const { return color_; }
  std::ostream& stream() { return out_; }
  // A text that a model or another user wrote: as it is for a file or a program, and for a terminal
  // without what that would obey. Pieces of a text are cut between characters.
  std::string Foreign(absl::string_view text) const;

  // One object or array as JSON or YAML. Tables and names are the caller's.
  void PrintValue(const nlohmann::ordered_json& value);
  // One line of JSON: an element of a stream.
  void PrintJsonLine(const nlohmann::ordered_json& value);
  void PrintTable(const Table& table) { table.Print(out_, terminal_ ? width_ : 0, color_); }
  // "KEY  VALUE" lines; a value of several lines is indented below its key.
  void PrintFields(const std::vector<std::pair<std::string, std::string>>& fields);
  std::string State(v1::JobState state) const;

 private:
  std::ostream& out_;
  OutputFormat format_;
  bool terminal_;
  bool color_;
  int width_;
};

// The state's name, in its colour where there is to be one.
std::string StateText(v1::JobState state, bool color);

// Texts of a job for tables. Empty where the value is not known.
std::string StepText(const v1::Progress& progress);  // "12/100"
std::string LossText(const v1::Progress& progress);  // "3.4120"
// Ranks: "4", of an elastic job "4-8", and "6 of 4-8" while it has a gang.
std::string SizeText(const v1::Job& job);
std::string SpeedText(double tokens_per_second);  // "1,234"
std::optional<absl::Duration> Eta(
    const v1::Progress& progress);  // to max_steps at the newest speed
std::string AgeText(const google::protobuf::Timestamp& since, absl::Time now);
std::string ForecastText(const v1::Forecast& forecast);
// YAML without the keys that were not given.
std::string SpecText(const v1::JobSpec& spec);
// One line: "job-… QUEUED: reason".
std::string JobLine(const v1::Job& job, const Output& output);

}  // namespace ll
