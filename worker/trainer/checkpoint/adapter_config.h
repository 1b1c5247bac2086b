// What a PEFT adapter folder's adapter_config.json says about its tensors. Torch-free.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ll {

struct AdapterConfig {
  int64_t rank = 0;
  double alpha = 0;
  double dropout = 0;
  bool use_rslora = false;
  std::vector<std::string> target_modules;  // short names, "q_proj"; "all-linear" is written out
  bool trains_embedding = false, trains_norm = false;  // what `modules_to_save` names
  // Why training cannot go on from the adapter, though it can be merged ("modules_to_save: expected
  // …"); empty: it can.
  std::string obstacle;
  std::string
      base_model;  // what it was trained on, a folder or a name; empty where it does not say
  // W + scale * B A.
  double scale() const;
};

// Errors name the member, without the file (the caller annotates): another kind of adapter than
// LoRA, a rank or alpha out of range, ranks or alphas that differ between layers, DoRA, biases that
// train, an initialisation that changed the base (PiSSA, OLoRA, …).
absl::StatusOr<AdapterConfig> ParseAdapterConfig(const std::string& text);

}  // namespace ll
