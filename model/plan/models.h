// Shapes of models that are known by name before any folder is seen. Torch-free, thread-safe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "model/plan/config.h"

namespace ll {

// "7b", "13b" or "70b": Llama-2 (context 4096, vocabulary 32000). nullopt for any other name. The
// weights themselves are an operator's to register.
std::optional<LlamaConfig> BuiltInModel(absl::string_view name);
std::vector<std::string> BuiltInModelNames();

}  // namespace ll
