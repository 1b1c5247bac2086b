// The table of a job's keys: one row per key, from which parsing, --set, help, validation and
// printing all work.
#pragma once

#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "model/spec/job_spec.h"

namespace ll {

using SpecMember =
    std::variant<std::optional<std::string> JobSpec::*, std::optional<int64_t> JobSpec::*,
                 std::optional<double> JobSpec::*, std::optional<bool> JobSpec::*,
                 std::vector<std::string> JobSpec::*, std::vector<int64_t> JobSpec::*,
                 std::map<std::string, std::string> JobSpec::*>;

// DescribeType names both ends of a range up to this maximum; larger ones are only stated when they
// are broken.
inline constexpr double kMaxPrintedRange = 1e6;

struct SpecField {
  std::string name;
  SpecMember member;
  std::string help;           // one sentence, with the unit
  std::string default_value;  // for people; how it is chosen where it depends on something
  double min = -std::numeric_limits<double>::infinity();  // inclusive; numbers only
  double max = std::numeric_limits<double>::infinity();
  bool positive = false;             // must be > 0
  std::vector<std::string> choices;  // strings and lists of strings; empty: any
  std::vector<std::string> aliases;  // other spellings that are accepted
  bool seconds = false;              // an integer that also takes a duration: "90m", "24h"
  std::string range_end;  // an integer that also takes a range, "4-8": the key of its end
};

// Every key, in the order of proto/job.proto. The reference stays valid for the process's life.
const std::vector<SpecField>& SpecFields();

// The names of SpecFields(), same order.
std::vector<std::string> SpecFieldNames();

// The field of that name or alias; nullptr where there is none.
const SpecField* FindSpecField(absl::string_view name_or_alias);

// The known key whose spelling is nearest to `key`, or "" where none is close.
std::string NearestSpecKey(absl::string_view key);

// "a positive integer (tokens)", "one of full, lora", …: what the field takes, for errors and help.
std::string DescribeType(const SpecField& field);

// Whether the key is given in `spec`.
bool IsGiven(const JobSpec& spec, const SpecField& field);

}  // namespace ll
