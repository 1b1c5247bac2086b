// A PEFT folder's adapter_config.json.
#include <cmath>

#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "worker/trainer/checkpoint/adapter_config.h"

namespace ll {

void FuzzOne(absl::string_view input) {
  const auto config = ParseAdapterConfig(std::string(input));
  if (!config.ok()) return CheckRefusal(config.status());
  LL_CHECK(std::isfinite(config->scale()));
}

}  // namespace ll
