#include "worker/trainer/checkpoint/adapter_config.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/json.h"
#include "base/status_macros.h"

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
  for (const char* pattern : {"rank_pattern", "alpha_pattern"}) {
    const json value = root.value(pattern, json());
    if (value.is_object() && !value.empty()) return Bad(pattern, "nothing", value);
  }
  if (IsOn(root, "use_dora")) return Bad("use_dora", "false", root["use_dora"]);
  AdapterConfig config;
  config.rank = rank.get<int64_t>();
  config.alpha = alpha.get<double>();
  config.use_rslora = IsOn(root, "use_rslora");
  if (base.is_string()) config.base_model = base.get<std::string>();
  return config;
}

}  // namespace ll
