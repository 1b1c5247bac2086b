#include "llctl/spec_flags.h"

#include <CLI/CLI.hpp>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "google/protobuf/util/json_util.h"
#include "llctl/errors.h"
#include "model/spec/spec_fields.h"

namespace ll {
namespace {

// Headings of --help: each starts at the key named here.
const std::map<std::string, std::string>& Groups() {
  static const auto& groups = *new std::map<std::string, std::string>{{"name", "What"},
                                                                      {"method", "Method"},
                                                                      {"learning_rate", "Recipe"},
                                                                      {"eval_task", "Evaluation"},
                                                                      {"gpus", "Service"}};
  return groups;
}

std::string Shortcut(const std::string& key) {
  if (key == "context_length") return ",--ctx";
  if (key == "max_steps") return ",--steps";
  return "";
}

bool IsBool(const SpecField& field) {
  return std::holds_alternative<std::optional<bool> JobSpec::*>(field.member);
}

bool IsListOrMap(const SpecField& field) {
  return std::holds_alternative<std::vector<std::string> JobSpec::*>(field.member) ||
         std::holds_alternative<std::vector<int64_t> JobSpec::*>(field.member) ||
         std::holds_alternative<std::map<std::string, std::string> JobSpec::*>(field.member);
}

std::string TypeName(const SpecField& field) {
  if (!field.choices.empty()) return absl::StrJoin(field.choices, IsListOrMap(field) ? "," : "|");
  if (field.seconds) return "SECONDS";
  if (!field.range_end.empty()) return "N|N-M";
  if (std::holds_alternative<std::optional<int64_t> JobSpec::*>(field.member)) return "N";
  if (std::holds_alternative<std::optional<double> JobSpec::*>(field.member)) return "X";
  if (std::holds_alternative<std::vector<int64_t> JobSpec::*>(field.member)) return "N,...";
  if (std::holds_alternative<std::vector<std::string> JobSpec::*>(field.member)) return "TEXT,...";
  if (std::holds_alternative<std::map<std::string, std::string> JobSpec::*>(field.member))
    return "KEY=VALUE,...";
  return "TEXT";
}

std::string HelpText(const SpecField& field) {
  if (field.default_value.empty()) return field.help;
  return absl::StrCat(field.help, " Default: ", field.default_value, ".");
}

void MakeAbsolute(std::optional<std::string>& path) {
  if (!path || path->empty() || path->front() == '/') return;
  if (path->find('/') == std::string::npos && path->find('.') == std::string::npos) return;
  std::error_code error;
  if (!std::filesystem::exists(*path, error)) return;
  path = std::filesystem::weakly_canonical(*path, error).string();
}

absl::Status InlineModelConfig(JobSpec& spec) {
  if (!spec.model_config || spec.model_config->empty()) return absl::OkStatus();
  if (absl::StripLeadingAsciiWhitespace(*spec.model_config)[0] == '{') return absl::OkStatus();
  if (!FileExists(*spec.model_config)) return absl::OkStatus();  // a path on the workers
  absl::StatusOr<std::string> text = ReadFile(*spec.model_config);
  if (!text.ok()) return AsUsageError(Annotate(text.status(), "model_config"));
  spec.model_config = *text;
  return absl::OkStatus();
}

}  // namespace

void SpecFlags::AddTo(CLI::App& app) {
  app.add_option("-f,--file", file_,
                 "Job spec to start from (YAML or JSON); flags override its keys.")
      ->type_name("FILE");
  app.add_option(
         "--set", sets_,
         "Sets a key of the spec by name; last word. KEY= takes one away. May be given several "
         "times.")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  std::string group;
  for (const SpecField& field : SpecFields()) {
    if (auto found = Groups().find(field.name); found != Groups().end()) group = found->second;
    const std::string dashed = absl::StrReplaceAll(field.name, {{"_", "-"}});
    CLI::Option* option = nullptr;
    if (IsBool(field)) {
      option =
          app.add_flag(absl::StrCat("--", dashed, ",!--no-", dashed))->description(HelpText(field));
    } else {
      option = app.add_option_function<std::vector<std::string>>(
          absl::StrCat("--", dashed, Shortcut(field.name)), [](const std::vector<std::string>&) {},
          HelpText(field));
      option->type_name(TypeName(field))->expected(1)->allow_extra_args(false);
      option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    }
    option->group(group);
    options_.emplace_back(field.name, option);
  }
}

CLI::Option* AddKeyFlag(CLI::App& command, std::map<std::string, std::string>& keys,
                        const char* flag, const char* key, const char* type, const char* help) {
  return command
      .add_option_function<std::string>(
          flag, [&keys, key = std::string(key)](const std::string& text) { keys[key] = text; },
          help)
      ->type_name(type);
}

absl::StatusOr<JobSpec> SpecFlags::Build(std::vector<std::string>* notes) const {
  JobSpec spec;
  if (!file_.empty()) {
    absl::StatusOr<std::string> text = ReadFile(file_);
    if (!text.ok()) return AsUsageError(text.status());
    absl::StatusOr<JobSpec> parsed = ParseJobSpec(*text, notes);
    if (!parsed.ok()) return Annotate(parsed.status(), file_);
    spec = *std::move(parsed);
  }
  for (const auto& [key, option] : options_) {
    if (option->count() == 0) continue;
    const std::vector<std::string>& given = option->results();
    const bool joined = IsListOrMap(*FindSpecField(key));  // of a scalar the last one counts
    LL_RETURN_IF_ERROR(SetField(spec, key, joined ? absl::StrJoin(given, ",") : given.back()));
  }
  for (const std::string& set : sets_) {
    const std::vector<std::string> parts = absl::StrSplit(set, absl::MaxSplits('=', 1));
    if (parts.size() != 2) return MakeFieldError({"set", "KEY=VALUE", set});
    LL_RETURN_IF_ERROR(SetField(spec, parts[0], parts[1]));
  }
  LL_RETURN_IF_ERROR(InlineModelConfig(spec));
  MakePathsAbsolute(spec);
  LL_RETURN_IF_ERROR(Validate(spec));
  return spec;
}

void MakePathsAbsolute(JobSpec& spec) {
  for (auto path : {&spec.model, &spec.adapter, &spec.tokenizer, &spec.data, &spec.eval_data}) {
    MakeAbsolute(*path);
  }
}

absl::StatusOr<v1::JobSpec> SpecToProto(const JobSpec& spec) {
  v1::JobSpec out;
  const auto status = google::protobuf::util::JsonStringToMessage(ToJson(spec).dump(), &out);
  if (!status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the spec does not fit the protocol: ", status.ToString()));
  }
  return out;
}

}  // namespace ll
