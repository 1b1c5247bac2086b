// A model folder's config.json, and what is computed from it before anything is allocated.
#include <cmath>

#include "base/check.h"
#include "model/plan/config.h"
#include "tests/fuzz/fuzz.h"

namespace ll {

void FuzzOne(absl::string_view input) {
  const auto config = ParseLlamaConfig(std::string(input));
  if (!config.ok()) return CheckRefusal(config.status());
  LL_CHECK(config->ParameterCount() > 0);
  LL_CHECK(config->OriginalContext() > 0 && config->Reach() > 0);
  for (const auto type :
       {RopeScaling::Type::kLinear, RopeScaling::Type::kNtk, RopeScaling::Type::kYarn}) {
    const auto extended = ExtendContext(*config, 32768, type, 0);
    if (!extended.ok()) {
      CheckRefusal(extended.status());
      continue;
    }
    LL_CHECK(std::isfinite(extended->rope.factor) && extended->rope.factor >= 1);
    // What is written is read again, as the same.
    const std::string text = LlamaConfigToJson(*extended).dump();
    const auto again = ParseLlamaConfig(text);
    LL_CHECK_MSG(again.ok(), again.ok() ? "" : std::string(again.status().message()).c_str());
    LL_CHECK(again->ParameterCount() == config->ParameterCount());
    LL_CHECK(again->rope.type == extended->rope.type &&
             again->rope.factor == extended->rope.factor);
  }
}

}  // namespace ll
