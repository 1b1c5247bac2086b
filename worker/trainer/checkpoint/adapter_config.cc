#include "worker/trainer/checkpoint/adapter_config.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/spec/job_spec.h"

namespace ll {
namespace {

using nlohmann::json;

constexpr int64_t kMaxRank = 65536;
constexpr double kMaxAlpha = 1e9;

absl::Status Bad(absl::string_view member, absl::string_view expected, const json& found) {
  return MakeFieldError({member, expected, JsonExcerpt(found)});
}

bool IsOn(const json& root, const char* name) {
  const auto it = root.find(name);
  return it != root.end() && *it == true;
}

// A module's own name, of its path: PEFT writes "all-linear" out as the paths of all, and older
// versions the last name where newer ones write the path.
std::string LastName(const json& module) {
  const std::string path = module.is_string() ? module.get<std::string>() : "";
  return path.substr(path.rfind('.') + 1);
}

// Names a Llama's linear layers have; others can be merged by their tensors' names alone. Whether
// every layer has its adapter its tensors tell.
absl::Status ReadTargets(const json& root, AdapterConfig& config) {
  const json found = root.value("target_modules", json());
  if (found == "all-linear") {
    config.target_modules = AllLinearModules();
    return absl::OkStatus();
  }
  const std::vector<std::string>& known = AllLinearModules();
  std::set<std::string> names;
  for (const json& module : found.is_array() ? found : json::array())
    names.insert(LastName(module));
  for (const std::string& name : known) {
    if (names.count(name) > 0) config.target_modules.push_back(name);
  }
  if (!names.empty() && config.target_modules.size() == names.size()) return absl::OkStatus();
  return Bad("target_modules", absl::StrCat("a list of ", absl::StrJoin(known, ", ")), found);
}

// PEFT's initialisations that leave the base as it is. The others (pissa, olora, corda, loftq, …)
// take what they put into A and B out of its weights, and again whenever such an adapter is loaded:
// on the base's own weights it is another model.
absl::Status CheckInitialisation(const json& root) {
  const json found = root.value("init_lora_weights", json(true));
  if (found.is_boolean() || found.is_null()) return absl::OkStatus();
  for (const char* known : {"gaussian", "eva", "orthogonal"}) {
    if (found.is_string() && absl::EqualsIgnoreCase(found.get<std::string>(), known))
      return absl::OkStatus();
  }
  return MakeFieldError({"init_lora_weights", "one that leaves the base's weights as they are",
                         JsonExcerpt(found),
                         "save it anew with PEFT's path_initial_model_for_weight_conversion"});
}

// Keys of PEFT that make of A and B something else than an addition of B A to one weight: for some
// tokens only, in blocks, drawn anew each time, beside a changed base, or in layers that the base
// does not have. Null, false or empty where they are off.
absl::Status CheckVariant(const json& root) {
  for (const char* key : {"rank_pattern", "alpha_pattern", "use_dora", "use_qalora", "use_bdlora",
                          "lora_bias", "alora_invocation_tokens", "layer_replication",
                          "arrow_config", "kasa_config", "monteclora_config"}) {
    const json value = root.value(key, json());
    const bool off = value.is_null() || value == false || (value.is_structured() && value.empty());
    if (!off) return Bad(key, "nothing", value);
  }
  return absl::OkStatus();
}

// PEFT keeps a copy of each module that is trained in full.
absl::Status ReadModulesToSave(const json& root, AdapterConfig& config) {
  const json found = root.value("modules_to_save", json());
  if (found.is_null()) return absl::OkStatus();
  if (!found.is_array()) return Bad("modules_to_save", "a list", found);
  for (const json& name : found) {
    const std::string text = LastName(name);
    if (text == "embed_tokens") {
      config.trains_embedding = true;
    } else if (absl::EndsWith(text, "norm")) {
      config.trains_norm = true;
    } else if (text != "lm_head" || !IsOn(root, "ensure_weight_tying")) {
      return Bad("modules_to_save", "the embedding and norms", name);
    }
  }
  return absl::OkStatus();
}

}  // namespace

double AdapterConfig::scale() const {
  const double r = static_cast<double>(rank);
  return alpha / (use_rslora ? std::sqrt(r) : r);
}

absl::StatusOr<AdapterConfig> ParseAdapterConfig(const std::string& text) {
  LL_ASSIGN_OR_RETURN(const json root, ParseJsonObject(text));
  const json type = root.value("peft_type", json()), rank = root.value("r", json()),
             alpha = root.value("lora_alpha", json()),
             base = root.value("base_model_name_or_path", json());
  if (type != "LORA") return Bad("peft_type", "LORA", type);
  if (!rank.is_number_unsigned() || rank.get<uint64_t>() < 1 || rank.get<uint64_t>() > kMaxRank)
    return Bad("r", absl::StrCat("an integer from 1 to ", kMaxRank), rank);
  if (!alpha.is_number() || std::fabs(alpha.get<double>()) > kMaxAlpha)
    return Bad("lora_alpha", "a number", alpha);
  LL_RETURN_IF_ERROR(CheckVariant(root));
  const json bias = root.value("bias", json("none")),
             dropout = root.value("lora_dropout", json(0.0));
  if (bias != "none") return Bad("bias", "none", bias);
  if (!dropout.is_number() || dropout.get<double>() < 0 || dropout.get<double>() >= 1)
    return Bad("lora_dropout", "a number from 0 to below 1", dropout);
  LL_RETURN_IF_ERROR(CheckInitialisation(root));
  AdapterConfig config;
  config.rank = rank.get<int64_t>();
  config.alpha = alpha.get<double>();
  config.dropout = dropout.get<double>();
  config.use_rslora = IsOn(root, "use_rslora");
  absl::Status resumable = ReadTargets(root, config);
  resumable.Update(ReadModulesToSave(root, config));
  config.obstacle = std::string(resumable.message());
  if (base.is_string()) config.base_model = base.get<std::string>();
  return config;
}

}  // namespace ll
