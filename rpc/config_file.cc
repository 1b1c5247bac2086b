#include "rpc/config_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ll {
namespace {

CLI::ConfigItem ItemOf(const YAML::Node& key, const YAML::Node& value) {
  CLI::ConfigItem item;
  if (!key.IsScalar()) throw CLI::FileError("config: expected a mapping of flags to plain values");
  item.name = key.as<std::string>();
  std::replace(item.name.begin(), item.name.end(), '_', '-');
  if (value.IsScalar()) {
    item.inputs = {value.as<std::string>()};
    return item;
  }
  if (!value.IsSequence()) {
    throw CLI::FileError(absl::StrCat("config: ", item.name, ": expected a value or a list"));
  }
  for (const auto& entry : value) {
    if (!entry.IsScalar()) {
      throw CLI::FileError(absl::StrCat("config: ", item.name, ": expected a list of values"));
    }
    item.inputs.push_back(entry.as<std::string>());
  }
  return item;
}

// CLI11 reads configuration files of its own dialect; this teaches it one flat YAML mapping.
class YamlConfig : public CLI::Config {
 public:
  std::string to_config(const CLI::App*, bool, bool, std::string) const override { return ""; }
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> items;
    YAML::Node root;
    try {
      root = YAML::Load(input);
    } catch (const YAML::Exception& error) {
      throw CLI::FileError(
          absl::StrCat("config: not YAML, line ", error.mark.line + 1, ": ", error.msg));
    }
    if (root.IsNull()) return items;
    if (!root.IsMap()) throw CLI::FileError("config: expected a mapping of flags to values");
    for (const auto& entry : root) items.push_back(ItemOf(entry.first, entry.second));
    return items;
  }
};

}  // namespace

void AddConfigFile(CLI::App& app) {
  app.config_formatter(std::make_shared<YamlConfig>());
  app.set_config("--config", "", "YAML file with the same keys; flags win");
  app.allow_config_extras(CLI::config_extras_mode::error);
}

}  // namespace ll
