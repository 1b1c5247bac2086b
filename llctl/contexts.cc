#include "llctl/contexts.h"

#include <sys/stat.h>
#include <yaml-cpp/yaml.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr int64_t kMaxConfigFileBytes = 1 << 20;

absl::Status BadConfig(const std::string& path, const std::string& what) {
  return MakeFieldError(
      {path, "current-context and contexts (coordinator, ca, token-file)", OneLine(what)});
}

absl::StatusOr<ContextFile> ParseContexts(const std::string& path, const YAML::Node& root) {
  ContextFile out;
  if (root.IsNull()) return out;
  if (!root.IsMap()) return BadConfig(path, "something else");
  for (const auto& entry : root) {
    const std::string key = entry.first.Scalar();
    if (key == "current-context" && entry.second.IsScalar()) {
      out.current = entry.second.Scalar();
    } else if (key == "contexts" && entry.second.IsMap()) {
      for (const auto& context : entry.second) {
        LL_RETURN_IF_ERROR(CheckContextName(context.first.Scalar()));
        CoordinatorContext& made = out.contexts[context.first.Scalar()];
        for (const auto& setting : context.second) {
          const std::string name = setting.first.Scalar();
          std::string* const value = name == "coordinator"  ? &made.coordinator
                                     : name == "ca"         ? &made.ca_file
                                     : name == "token-file" ? &made.token_file
                                                            : nullptr;
          if (value == nullptr || !setting.second.IsScalar()) return BadConfig(path, name);
          *value = setting.second.Scalar();
        }
      }
    } else {
      return BadConfig(path, key);
    }
  }
  return out;
}

}  // namespace

std::string ConfigDir(const EnvironmentReader& environment) {
  if (std::string dir = environment("XDG_CONFIG_HOME"); !dir.empty()) return dir + "/ll";
  return environment("HOME") + "/.config/ll";
}

absl::Status CheckContextName(const std::string& name) {
  constexpr char kAllowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (!name.empty() && name.size() <= 64 && name.front() != '.' &&
      name.find_first_not_of(kAllowed) == std::string::npos)
    return absl::OkStatus();
  return MakeFieldError({"context", "1 to 64 letters, digits, '.', '_' or '-'",
                         absl::StrCat("\"", OneLine(name.substr(0, 80)), "\"")});
}

absl::StatusOr<ContextFile> ReadContexts(const std::string& config_dir) {
  const std::string path = config_dir + "/config.yaml";
  if (!FileExists(path)) return ContextFile();
  LL_ASSIGN_OR_RETURN(const std::string text, ReadPlainFile(path, kMaxConfigFileBytes));
  try {  // yaml-cpp reports bad syntax and wrong kinds by throwing
    return ParseContexts(path, YAML::Load(text));
  } catch (const YAML::Exception& error) {
    return BadConfig(path, error.what());
  }
}

absl::Status WriteContexts(const std::string& config_dir, const ContextFile& file) {
  LL_RETURN_IF_ERROR(MakeDirs(config_dir));
  if (chmod(config_dir.c_str(), 0700) != 0) return ErrnoStatus(errno, "cannot close", config_dir);
  YAML::Emitter out;
  out << YAML::BeginMap;
  if (!file.current.empty()) out << YAML::Key << "current-context" << YAML::Value << file.current;
  out << YAML::Key << "contexts" << YAML::Value << YAML::BeginMap;
  for (const auto& [name, context] : file.contexts) {
    out << YAML::Key << name << YAML::Value << YAML::BeginMap;
    const auto put = [&out](const char* key, const std::string& value) {
      if (!value.empty()) out << YAML::Key << key << YAML::Value << value;
    };
    put("coordinator", context.coordinator);
    put("ca", context.ca_file);
    put("token-file", context.token_file);
    out << YAML::EndMap;
  }
  out << YAML::EndMap << YAML::EndMap;
  return WriteFileAtomic(config_dir + "/config.yaml", absl::StrCat(out.c_str(), "\n"), 0600);
}

absl::StatusOr<CoordinatorContext> ChosenContext(const std::string& wanted,
                                                 const EnvironmentReader& environment) {
  std::string name = wanted.empty() ? environment("LLCTL_CONTEXT") : wanted;
  LL_ASSIGN_OR_RETURN(const ContextFile file, ReadContexts(ConfigDir(environment)));
  if (name.empty()) name = file.current;
  if (name.empty()) return CoordinatorContext();
  const auto it = file.contexts.find(name);
  if (it != file.contexts.end()) return it->second;
  return FieldStatus(absl::StatusCode::kNotFound, "context",
                     absl::StrCat("there is no context ", OneLine(name.substr(0, 80))),
                     "llctl config get-contexts shows them");
}

}  // namespace ll
