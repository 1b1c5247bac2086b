#include "model/weight_source.h"

#include <ATen/CPUGeneratorImpl.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "model/random_tensor.h"

namespace ll {
namespace {

// The shape Hugging Face's Llama gives the weight; empty for a name it does not have.
std::vector<int64_t> ShapeOf(const LlamaConfig& c, absl::string_view name) {
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  const auto ends = [&](absl::string_view suffix) { return absl::EndsWith(name, suffix); };
  if (ends("norm.weight")) return {c.hidden_size};
  if (ends("embed_tokens.weight") || name == "lm_head.weight") return {c.vocab_size, c.hidden_size};
  if (ends("q_proj.weight")) return {q, c.hidden_size};
  if (ends("k_proj.weight") || ends("v_proj.weight")) return {kv, c.hidden_size};
  if (ends("o_proj.weight")) return {c.hidden_size, q};
  if (ends("gate_proj.weight") || ends("up_proj.weight"))
    return {c.intermediate_size, c.hidden_size};
  if (ends("down_proj.weight")) return {c.hidden_size, c.intermediate_size};
  return {};
}

}  // namespace

absl::StatusOr<at::Tensor> RandomWeights::Get(const std::string& hf_name) {
  const std::vector<int64_t> shape = ShapeOf(config_, hf_name);
  if (shape.empty())
    return absl::NotFoundError(absl::StrCat("a Llama model has no weight ", hf_name));
  if (shape.size() == 1) return at::ones(shape, at::kFloat);
  at::Generator generator = NamedGenerator(seed_, hf_name);
  return at::empty(shape, at::kFloat).normal_(0.0, config_.initializer_range, generator);
}

}  // namespace ll
