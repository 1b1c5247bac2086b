#include "llctl/sweep.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/spec/spec_fields.h"

namespace ll {
namespace {

constexpr size_t kMaxJobs = 1000;

struct Axis {
  std::string key;
  std::vector<std::string> values;
};

absl::StatusOr<Axis> ParseAxis(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (parts.size() != 2 || parts[1].empty()) {
    return MakeFieldError({"sweep", "KEY=VALUE,VALUE,...", text});
  }
  const SpecField* field = FindSpecField(parts[0]);
  if (field == nullptr || field->name == "name" || field->name == "labels") {
    const std::string nearest = NearestSpecKey(parts[0]);
    return MakeFieldError({"sweep", "a key of the spec, but name and labels", parts[0],
                           nearest.empty() ? "" : absl::StrCat("did you mean ", nearest, "?")});
  }
  const char separator = parts[1].find(';') == std::string::npos ? ',' : ';';
  Axis axis{field->name, absl::StrSplit(parts[1], separator)};
  for (const std::string& value : axis.values) {
    if (value.empty()) return MakeFieldError({"sweep", "values that are not empty", text});
  }
  return axis;
}

absl::StatusOr<std::vector<Axis>> ParseAxes(const std::vector<std::string>& sweeps) {
  std::vector<Axis> axes;
  std::set<std::string> seen;
  size_t jobs = 1;
  for (const std::string& text : sweeps) {
    LL_ASSIGN_OR_RETURN(Axis axis, ParseAxis(text));
    if (!seen.insert(axis.key).second)
      return MakeFieldError({"sweep", "each key once", absl::StrCat(axis.key, " twice")});
    jobs *= axis.values.size();
    if (jobs > kMaxJobs) {
      return MakeFieldError(
          {"sweep", absl::StrCat("at most ", kMaxJobs, " combinations"), absl::StrCat(jobs)});
    }
    axes.push_back(std::move(axis));
  }
  return axes;
}

}  // namespace

absl::StatusOr<std::vector<JobSpec>> ExpandSweep(const JobSpec& base,
                                                 const std::vector<std::string>& sweeps,
                                                 const std::string& random_name) {
  LL_ASSIGN_OR_RETURN(const std::vector<Axis> axes, ParseAxes(sweeps));
  const std::string name = base.name.value_or(random_name);
  std::vector<JobSpec> specs = {base};
  for (const Axis& axis : axes) {
    std::vector<JobSpec> wider;
    for (const JobSpec& spec : specs) {
      for (const std::string& value : axis.values) {
        wider.push_back(spec);
        LL_RETURN_IF_ERROR(SetField(wider.back(), axis.key, value));
        wider.back().labels[axis.key] = value;
      }
    }
    specs = std::move(wider);
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    specs[i].name = absl::StrCat(name, "-", i);
    specs[i].labels["array"] = name;
    LL_RETURN_IF_ERROR(Annotate(Validate(specs[i]), *specs[i].name));
  }
  return specs;
}

}  // namespace ll
