#include "model/plan/models.h"

namespace ll {
namespace {

struct Shape {
  const char* name;
  int64_t hidden, intermediate, layers, heads, kv_heads;
};

// Touvron et al. 2023, "Llama 2", and the folders' config.json.
constexpr Shape kShapes[] = {
    {"7b", 4096, 11008, 32, 32, 32},
    {"13b", 5120, 13824, 40, 40, 40},
    {"70b", 8192, 28672, 80, 64, 8},
};

}  // namespace

std::optional<LlamaConfig> BuiltInModel(absl::string_view name) {
  for (const Shape& s : kShapes) {
    if (name != s.name) continue;
    LlamaConfig c;
    c.vocab_size = 32000;
    c.hidden_size = s.hidden;
    c.intermediate_size = s.intermediate;
    c.num_hidden_layers = s.layers;
    c.num_attention_heads = s.heads;
    c.num_key_value_heads = s.kv_heads;
    c.head_dim = s.hidden / s.heads;
    c.max_position_embeddings = 4096;
    c.dtype = "bfloat16";
    c.raw = nlohmann::json::object();
    return c;
  }
  return std::nullopt;
}

std::vector<std::string> BuiltInModelNames() {
  std::vector<std::string> names;
  for (const Shape& s : kShapes) names.push_back(s.name);
  return names;
}

}  // namespace ll
