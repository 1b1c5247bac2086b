#include "model/plan/models.h"

#include "absl/strings/strip.h"

namespace ll {
namespace {

struct Shape {
  const char* name;
  const char* model_type;
  int64_t vocab, hidden, intermediate, layers, heads, kv_heads, context;
  double theta;
  int64_t head_dim = 128;
  bool tied = false;
  double llama3_factor = 0;  // of Llama-3 scaling from 8192 tokens; 0 = positions are not scaled
  double eps = 1e-5;
};

// The folders' config.json, as published with the weights. Llama 2 also: Touvron et al. 2023.
// mistral-7b is v0.3: its attention has no sliding window any more.
constexpr Shape kShapes[] = {
    {"7b", "llama", 32000, 4096, 11008, 32, 32, 32, 4096, 1e4},
    {"13b", "llama", 32000, 5120, 13824, 40, 40, 40, 4096, 1e4},
    {"70b", "llama", 32000, 8192, 28672, 80, 64, 8, 4096, 1e4},
    {"llama-3.1-8b", "llama", 128256, 4096, 14336, 32, 32, 8, 131072, 5e5, 128, false, 8},
    {"llama-3.2-1b", "llama", 128256, 2048, 8192, 16, 32, 8, 131072, 5e5, 64, true, 32},
    {"llama-3.2-3b", "llama", 128256, 3072, 8192, 28, 24, 8, 131072, 5e5, 128, true, 32},
    {"mistral-7b", "mistral", 32768, 4096, 14336, 32, 32, 8, 32768, 1e6},
    {"qwen2.5-7b", "qwen2", 152064, 3584, 18944, 28, 28, 4, 131072, 1e6, 128, false, 0, 1e-6},
    {"qwen3-8b", "qwen3", 151936, 4096, 12288, 36, 32, 8, 40960, 1e6, 128, false, 0, 1e-6},
};

LlamaConfig ConfigOf(const Shape& s) {
  LlamaConfig c;
  c.model_type = s.model_type;
  c.vocab_size = s.vocab;
  c.hidden_size = s.hidden;
  c.intermediate_size = s.intermediate;
  c.num_hidden_layers = s.layers;
  c.num_attention_heads = s.heads;
  c.num_key_value_heads = s.kv_heads;
  c.head_dim = s.head_dim;
  c.max_position_embeddings = s.context;
  c.rms_norm_eps = s.eps;
  c.rope_theta = s.theta;
  c.tie_word_embeddings = s.tied;
  if (s.llama3_factor > 0) {
    c.rope.type = RopeScaling::Type::kLlama3;
    c.rope.factor = s.llama3_factor;
    c.rope.original_max_position_embeddings = 8192;
  }
  c.dtype = "bfloat16";
  c.raw = nlohmann::json::object();
  return c;
}

}  // namespace

std::optional<LlamaConfig> BuiltInModel(absl::string_view name) {
  // The short names are Llama 2's.
  if (name == "llama-2-7b" || name == "llama-2-13b" || name == "llama-2-70b")
    absl::ConsumePrefix(&name, "llama-2-");
  for (const Shape& s : kShapes) {
    if (name == s.name) return ConfigOf(s);
  }
  return std::nullopt;
}

std::vector<std::string> BuiltInModelNames() {
  std::vector<std::string> names;
  for (const Shape& s : kShapes) names.push_back(s.name);
  return names;
}

}  // namespace ll
