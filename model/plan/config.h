// The architecture of a model as its Hugging Face folder's config.json states it.
//
// LlamaConfig covers the family that shares Llama's decoder layer, by `model_type`: llama (1, 2,
// 3), mistral (attention may have a sliding window), qwen2 (q, k and v have a bias) and qwen3 (q
// and k are normed head by head). Any other model_type is refused.
//
// Plain values without torch, so that the planner, llctl and the trainer read one definition.
// Reading accepts the spellings of transformers 4 (`rope_scaling`, top-level `rope_theta`,
// `torch_dtype`) and 5 (`rope_parameters`, `dtype`); writing gives a file both can read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace ll {

// Rotary position scaling. `kNone` is plain RoPE; `kLinear` is Position Interpolation (angle = m /
// factor * inv_freq); `kNtk` a larger theta. `kDynamicNtk` takes theta from the length at hand,
// beyond max_position_embeddings, which therefore stays the original context. Formulas:
// model/rope.cc.
struct RopeScaling {
  enum class Type { kNone, kLinear, kNtk, kDynamicNtk, kYarn, kLlama3 };
  Type type = Type::kNone;
  double factor = 1.0;
  // Context the base model was trained for, in tokens; 0 where the file does not say.
  int64_t original_max_position_embeddings = 0;
  // YaRN (defaults of the paper) and Llama-3 only.
  double beta_fast = 32.0, beta_slow = 1.0;
  bool truncate = true;  // YaRN: the ramp's ends are whole dimensions
  std::optional<double> attention_factor;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;

  bool operator==(const RopeScaling&) const = default;
};

// What a layer does token by token (norms, projections, the MLP) it does for a row in equal tiles
// of at most so many (model/llama_layer.cc): what lies between two such operations is then small,
// and a product of so many rows fills any device. Part of what a training computes, to the last
// bit; memory forecasts count by it.
inline constexpr int64_t kTileTokens = 8192;

struct LlamaConfig {
  std::string model_type = "llama";
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  double initializer_range = 0.02;
  RopeScaling rope;
  bool tie_word_embeddings = false;
  // What tokens of this id put in gets no gradient in the embedding (torch.nn.Embedding's
  // padding_idx, as transformers sets it); -1: none.
  int64_t pad_token_id = -1;
  // Sliding window: in a windowed layer token t sees the `sliding_window` tokens that end with t
  // itself. 0 = none has a window. `windowed_layers` says which have; empty = all.
  int64_t sliding_window = 0;
  std::vector<bool> windowed_layers;
  std::string dtype = "bfloat16";  // of the weights in the folder: float32, bfloat16 or float16
  bool quantized = false;          // the folder keeps its linear weights in NF4
  // The whole file as read: fields this struct does not model survive a rewrite.
  nlohmann::json raw;

  // q_proj, k_proj and v_proj have a bias (qwen2).
  bool HasQkvBias() const { return model_type == "qwen2"; }
  // Each query and key head is RMS-normed before it is rotated: q_norm, k_norm [head_dim] (qwen3).
  bool HasQkNorm() const { return model_type == "qwen3"; }
  // The window of a layer in tokens; 0 = full attention.
  int64_t WindowOf(int64_t layer) const;
  // Number of weights, the tied head counted once.
  int64_t ParameterCount() const;
  // Context the weights were first trained for: `original_max_position_embeddings` where the file
  // states it (or its scaling implies it: yarn, llama3 and dynamic); else max_position_embeddings
  // divided by the scaling factor.
  int64_t OriginalContext() const;
  // Tokens the model reaches as configured: max_position_embeddings, or original length times
  // factor where that is more (some folders raise only the factor).
  int64_t Reach() const;
};

// Name and shape of every weight of a Hugging Face folder of this model, in file order; no lm_head
// where it is tied.
struct WeightShape {
  std::string name;
  std::vector<int64_t> shape;
};
std::vector<WeightShape> WeightShapes(const LlamaConfig& config);

// Parses and checks the text of a config.json. A model this project cannot run (another
// architecture, a bias on o_proj or the MLP, an activation other than SiLU, heads not divisible by
// KV heads, …) is an InvalidArgument naming the field.
absl::StatusOr<LlamaConfig> ParseLlamaConfig(const std::string& json_text);

// Reads DIR/config.json, or the file itself where `path` is one. Errors name the path: NotFound,
// and those of ParseLlamaConfig.
absl::StatusOr<LlamaConfig> ReadLlamaConfig(const std::string& path);

// The file's JSON with this struct's values written into it, in both spellings of the rope fields.
nlohmann::json LlamaConfigToJson(const LlamaConfig& config);

// The config for reading `target_context` tokens with Position Interpolation (or `type`): factor =
// ceil(target / original), composing with a factor already there (design §5, "Extending what was
// extended"). `original_context_override` > 0 replaces the original length read from the file. A
// target within the model's reach leaves the scaling as it is. kDynamicNtk keeps
// max_position_embeddings at the original context. A Llama-3 scaling stays one: asked for kLinear,
// its factor grows. Errors: target not positive; a scaling of another type that cannot be composed
// with.
absl::StatusOr<LlamaConfig> ExtendContext(const LlamaConfig& config, int64_t target_context,
                                          RopeScaling::Type type,
                                          int64_t original_context_override = 0);

// Whether a model may be trained at `context_length`: positive and not below the original context
// (the config's, or the override where that is > 0).
absl::Status CheckContextLength(const LlamaConfig& config, int64_t context_length,
                                int64_t original_context_override = 0);

// "linear", "ntk", "dynamic", "yarn", "llama3", "none" (the spec's key `rope`) as a type. Other
// words are kNone.
RopeScaling::Type RopeTypeFromName(absl::string_view name);

}  // namespace ll
