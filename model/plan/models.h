// Shapes of models that are known by name before any folder is seen. Torch-free, thread-safe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "model/plan/config.h"

namespace ll {

// "7b", "13b", "70b" (Llama-2, context 4096; also "llama-2-7b", …), "llama-3.1-8b", "llama-3.2-1b",
// "llama-3.2-3b", "mistral-7b", "qwen2.5-7b" or "qwen3-8b". nullopt for any other name. The weights
// themselves are an operator's to register.
std::optional<LlamaConfig> BuiltInModel(absl::string_view name);
std::vector<std::string> BuiltInModelNames();

}  // namespace ll
