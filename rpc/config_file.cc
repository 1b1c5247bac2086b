#include "rpc/config_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/edit_distance.h"
#include "base/usage_words.h"

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

// CLI11 reads configuration files of its own dialect; this teaches it one flat YAML mapping, and to
// say of a key that it does not know which file has it and which one may have been meant.
class YamlConfig : public CLI::Config {
 public:
  // `app` owns this.
  explicit YamlConfig(const CLI::App& app) : app_(app) {}
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
    std::set<std::string> keys;
    for (const auto& entry : root) {
      items.push_back(ItemOf(entry.first, entry.second));
      if (!keys.insert(items.back().name).second)
        throw CLI::FileError(absl::StrCat("config: ", items.back().name, ": given twice"));
      for (const std::string& value : items.back().inputs) {
        if (absl::StartsWith(value, "~/")) {
          throw CLI::FileError(absl::StrCat("config: ", items.back().name,
                                            ": expected a whole path, found ", value,
                                            ", which only a shell expands"));
        }
      }
      if (app_.get_option_no_throw("--" + items.back().name) == nullptr) {
        throw CLI::FileError(Unknown(entry.first.as<std::string>(), items.back().name));
      }
    }
    return items;
  }

 private:
  std::string Unknown(const std::string& key, const std::string& flag) const {
    std::vector<std::string> names;
    for (const CLI::Option* option : app_.get_options())
      names.insert(names.end(), option->get_lnames().begin(), option->get_lnames().end());
    const std::string nearest = NearestName(flag, names);
    const std::vector<std::string>& files = app_.get_config_ptr()->results();
    return absl::StrCat(files.empty() ? "config" : files.back(), ": unknown key ", key,
                        nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?"));
  }

  const CLI::App& app_;
};

// The flag that was meant by one that the command does not have; "" where none is near.
std::string NearestFlag(const CLI::App& app, absl::string_view unknown) {
  if (!absl::ConsumePrefix(&unknown, "--")) return "";
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    names.insert(names.end(), option->get_lnames().begin(), option->get_lnames().end());
  return NearestName(unknown.substr(0, unknown.find('=')), names);
}

}  // namespace

std::string UsageLine(const CLI::App& app, const CLI::ParseError& error) {
  std::string message = UsageInWords(error.what());
  constexpr absl::string_view kUnread = " was not readable (missing?)";  // CLI11's words
  if (absl::EndsWith(message, kUnread)) {
    message.resize(message.size() - kUnread.size());
    message =
        absl::StrCat("config: ", message,
                     " cannot be read; is it a file that is there, and may this user read it?");
  }
  // An unknown flag comes first, whatever else is missing because of it. Its value is no flag.
  for (const std::string& unknown : app.remaining(/*recurse=*/true)) {
    if (unknown.empty() || unknown[0] != '-') continue;
    const std::string nearest = NearestFlag(app, unknown);
    message = absl::StrCat("unknown flag ", unknown,
                           nearest.empty() ? "" : absl::StrCat("; did you mean --", nearest, "?"));
    break;
  }
  return absl::StrCat(app.get_name(), ": ", message, "; see ", app.get_name(), " --help");
}

void AddConfigFile(CLI::App& app) {
  app.config_formatter(std::make_shared<YamlConfig>(app));
  app.set_config("--config", "", "YAML file with the same keys; flags win");
  app.allow_config_extras(CLI::config_extras_mode::error);
}

}  // namespace ll
