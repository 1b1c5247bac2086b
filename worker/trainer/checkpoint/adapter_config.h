// What a PEFT adapter folder's adapter_config.json says about merging it. Torch-free.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace ll {

struct AdapterConfig {
  int64_t rank = 0;
  double alpha = 0;
  bool use_rslora = false;
  std::string
      base_model;  // what it was trained on, a folder or a name; empty where it does not say
  // W + scale * B A.
  double scale() const;
};

// Errors name the member, without the file (the caller annotates): another kind of adapter than
// LoRA, a rank or alpha out of range, ranks or alphas that differ between layers, DoRA.
absl::StatusOr<AdapterConfig> ParseAdapterConfig(const std::string& text);

}  // namespace ll
