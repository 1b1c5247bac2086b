// LlamaConfig: parsing, checks and derived numbers. Position scaling is in rope_config.cc.
#include "model/plan/config.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/plan/config_internal.h"

namespace ll {
namespace {

using nlohmann::json;

absl::Status Unsupported(absl::string_view field, absl::string_view expected, const json& found) {
  return ConfigError(field, expected, JsonExcerpt(found));
}

// Sizes beyond these are typing errors, and their products would overflow.
constexpr int64_t kMaxSize = 1 << 24;
constexpr double kMaxParameters = 1e15;
constexpr int64_t kMaxConfigValues = 100'000;

absl::Status ReadSize(const json& raw, const char* field, int64_t fallback, int64_t& out) {
  auto it = raw.find(field);
  if (it == raw.end() || it->is_null()) {
    if (fallback <= 0) return ConfigError(field, "a positive integer", "nothing");
    out = fallback;
    return absl::OkStatus();
  }
  if (!it->is_number_integer() || it->get<int64_t>() <= 0 || it->get<int64_t>() > kMaxSize) {
    return Unsupported(field, absl::StrCat("an integer from 1 to ", kMaxSize), *it);
  }
  out = it->get<int64_t>();
  return absl::OkStatus();
}

absl::Status ReadFlag(const json& raw, const char* field, bool& out) {
  auto it = raw.find(field);
  if (it == raw.end() || it->is_null()) return absl::OkStatus();
  if (!it->is_boolean()) return Unsupported(field, "true or false", *it);
  out = it->get<bool>();
  return absl::OkStatus();
}

struct Family {
  const char* model_type;
  const char* architecture;
};
constexpr Family kFamilies[] = {{"llama", "LlamaForCausalLM"},
                                {"mistral", "MistralForCausalLM"},
                                {"qwen2", "Qwen2ForCausalLM"},
                                {"qwen3", "Qwen3ForCausalLM"}};

absl::Status ReadFamily(const json& raw, LlamaConfig& c) {
  c.model_type = raw.contains("model_type") && raw["model_type"].is_string()
                     ? raw["model_type"].get<std::string>()
                     : "nothing";
  for (const Family& family : kFamilies) {
    if (c.model_type == family.model_type) return absl::OkStatus();
  }
  return ConfigError("model_type", "one of llama, mistral, qwen2, qwen3", c.model_type);
}

// Fields that change the computation in ways this project does not implement.
absl::Status CheckArchitecture(const json& raw) {
  for (const char* field : {"attention_bias", "mlp_bias"}) {
    bool on = false;
    LL_RETURN_IF_ERROR(ReadFlag(raw, field, on));
    if (on) return ConfigError(field, "false", "true");
  }
  if (raw.contains("hidden_act") && raw["hidden_act"] != "silu") {
    return Unsupported("hidden_act", "\"silu\"", raw["hidden_act"]);
  }
  if (raw.contains("partial_rotary_factor") && raw["partial_rotary_factor"] != 1 &&
      !raw["partial_rotary_factor"].is_null()) {
    return Unsupported("partial_rotary_factor", "1", raw["partial_rotary_factor"]);
  }
  return absl::OkStatus();
}

// Weights in NF4 with double quantisation, as bitsandbytes and `ll-trainer quantize` write them;
// the folder's tensors say the rest.
absl::Status ReadQuantization(const json& raw, LlamaConfig& c) {
  const auto it = raw.find("quantization_config");
  if (it == raw.end() || it->is_null()) return absl::OkStatus();
  const json want = {{"quant_method", "bitsandbytes"},
                     {"load_in_4bit", true},
                     {"bnb_4bit_quant_type", "nf4"},
                     {"bnb_4bit_use_double_quant", true}};
  for (const auto& [key, value] : want.items()) {
    const json found = it->is_object() ? it->value(key, json()) : json();
    if (found != value) {
      return Unsupported(absl::StrCat("quantization_config ", key),
                         absl::StrCat(value.dump(), " (NF4 with double quantisation is read)"),
                         found);
    }
  }
  c.quantized = true;
  return absl::OkStatus();
}

// Sizes, and what a field that is missing means to transformers. Where that depends on the family
// in surprising ways (8 KV heads in a Mistral, 32 in a Qwen) the field must be there.
absl::Status ReadSizes(const json& raw, LlamaConfig& c) {
  const bool llama = c.model_type == "llama";
  LL_RETURN_IF_ERROR(ReadSize(raw, "vocab_size", 0, c.vocab_size));
  LL_RETURN_IF_ERROR(ReadSize(raw, "hidden_size", 0, c.hidden_size));
  LL_RETURN_IF_ERROR(ReadSize(raw, "intermediate_size", 0, c.intermediate_size));
  LL_RETURN_IF_ERROR(ReadSize(raw, "num_hidden_layers", 0, c.num_hidden_layers));
  LL_RETURN_IF_ERROR(ReadSize(raw, "num_attention_heads", 0, c.num_attention_heads));
  LL_RETURN_IF_ERROR(ReadSize(raw, "num_key_value_heads", llama ? c.num_attention_heads : 0,
                              c.num_key_value_heads));
  const int64_t default_head_dim =
      c.model_type == "qwen3" ? 128 : c.hidden_size / c.num_attention_heads;
  LL_RETURN_IF_ERROR(ReadSize(raw, "head_dim", default_head_dim, c.head_dim));
  LL_RETURN_IF_ERROR(
      ReadSize(raw, "max_position_embeddings", llama ? 2048 : 0, c.max_position_embeddings));
  if (c.num_hidden_layers > 4096)
    return ConfigError("num_hidden_layers", "at most 4096", absl::StrCat(c.num_hidden_layers));
  const bool explicit_head_dim = raw.contains("head_dim") && !raw["head_dim"].is_null();
  if (!explicit_head_dim && c.model_type != "qwen3" && c.hidden_size % c.num_attention_heads != 0) {
    return ConfigError(
        "hidden_size",
        absl::StrCat("a multiple of num_attention_heads (", c.num_attention_heads, ")"),
        absl::StrCat(c.hidden_size));
  }
  if (c.num_attention_heads % c.num_key_value_heads != 0) {
    return ConfigError(
        "num_key_value_heads",
        absl::StrCat("a divisor of num_attention_heads (", c.num_attention_heads, ")"),
        absl::StrCat(c.num_key_value_heads));
  }
  if (c.head_dim % 2 != 0)
    return ConfigError("head_dim", "an even number", absl::StrCat(c.head_dim));
  const double heads = 4.0 * static_cast<double>(c.num_attention_heads) *
                       static_cast<double>(c.head_dim),
               width = heads + 3.0 * static_cast<double>(c.intermediate_size),
               rows = 2.0 * static_cast<double>(c.vocab_size) +
                      static_cast<double>(c.num_hidden_layers) * width;
  if (rows * static_cast<double>(c.hidden_size) > kMaxParameters) {
    return ConfigError("hidden_size",
                       absl::StrCat("sizes of at most ", kMaxParameters, " parameters in all"),
                       absl::StrCat(c.hidden_size));
  }
  return absl::OkStatus();
}

// The window is for the layers that `layer_types` names. Without it Mistral's is for every layer,
// and Qwen's, which is off unless use_sliding_window, from max_window_layers on.
absl::Status ReadSlidingWindow(const json& raw, LlamaConfig& c) {
  const bool mistral = c.model_type == "mistral";
  bool used = mistral;
  const bool qwen = c.HasQkvBias() || c.HasQkNorm();
  if (qwen) LL_RETURN_IF_ERROR(ReadFlag(raw, "use_sliding_window", used));
  const bool null = raw.contains("sliding_window") && raw["sliding_window"].is_null();
  if (used && !null) LL_RETURN_IF_ERROR(ReadSize(raw, "sliding_window", 4096, c.sliding_window));
  const json types = raw.value("layer_types", json());
  if (!types.is_null() &&
      (!types.is_array() || types.size() != static_cast<size_t>(c.num_hidden_layers))) {
    return ConfigError("layer_types", "one text for each layer", "something else");
  }
  for (const json& type : types) {
    if (type == "full_attention" || ((qwen || mistral) && type == "sliding_attention")) continue;
    return Unsupported("layer_types",
                       qwen || mistral ? "full_attention or sliding_attention" : "full_attention",
                       type);
  }
  if (c.sliding_window == 0 || (mistral && types.is_null())) return absl::OkStatus();
  int64_t first = 28;  // transformers' default of max_window_layers
  if (raw.value("max_window_layers", json()) == 0) {
    first = 0;
  } else {
    LL_RETURN_IF_ERROR(ReadSize(raw, "max_window_layers", first, first));
  }
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    c.windowed_layers.push_back(types.is_array() ? types[l] == "sliding_attention" : l >= first);
  }
  return absl::OkStatus();
}

// Counted from the end where it is negative, as torch does; one beyond the vocabulary, which torch
// refuses, is none.
void ReadPadToken(const json& raw, LlamaConfig& c) {
  const json id = raw.value("pad_token_id", json());
  if (!id.is_number_integer()) return;
  const double at = id.get<double>(), end = static_cast<double>(c.vocab_size);
  if (at < -end || at >= end) return;
  c.pad_token_id = id.get<int64_t>() + (at < 0 ? c.vocab_size : 0);
}

absl::Status ReadDtype(const json& raw, LlamaConfig& c) {
  for (const char* field : {"dtype", "torch_dtype"}) {
    if (!raw.contains(field) || raw[field].is_null()) continue;
    if (raw[field] == "float32" || raw[field] == "bfloat16" || raw[field] == "float16") {
      c.dtype = raw[field].get<std::string>();
      return absl::OkStatus();
    }
    return Unsupported(field, "float32, bfloat16 or float16", raw[field]);
  }
  c.dtype = "float32";  // without the weights, whose type transformers takes, there is no telling
  return absl::OkStatus();
}

}  // namespace

absl::Status ConfigError(absl::string_view field, absl::string_view expected,
                         absl::string_view found) {
  return MakeFieldError({absl::StrCat("config.json ", field), expected, found});
}

absl::Status ReadReal(const json& from, const char* field, double min_exclusive, double& out) {
  auto it = from.find(field);
  if (it == from.end() || it->is_null()) return absl::OkStatus();
  if (!it->is_number() || !std::isfinite(it->get<double>()) || it->get<double>() <= min_exclusive) {
    return Unsupported(field, absl::StrCat("a number > ", min_exclusive), *it);
  }
  out = it->get<double>();
  return absl::OkStatus();
}

absl::StatusOr<LlamaConfig> ParseLlamaConfig(const std::string& json_text) {
  LlamaConfig c;
  auto raw = ParseJsonObject(json_text, {.max_values = kMaxConfigValues});
  if (!raw.ok()) return Annotate(raw.status(), "config.json");
  c.raw = *std::move(raw);
  LL_RETURN_IF_ERROR(ReadFamily(c.raw, c));
  LL_RETURN_IF_ERROR(CheckArchitecture(c.raw));
  LL_RETURN_IF_ERROR(ReadQuantization(c.raw, c));
  LL_RETURN_IF_ERROR(ReadSizes(c.raw, c));
  LL_RETURN_IF_ERROR(ReadSlidingWindow(c.raw, c));
  LL_RETURN_IF_ERROR(ReadDtype(c.raw, c));
  ReadPadToken(c.raw, c);
  LL_RETURN_IF_ERROR(ReadFlag(c.raw, "tie_word_embeddings", c.tie_word_embeddings));
  c.rms_norm_eps = 1e-6;  // transformers' default of a file that does not say
  LL_RETURN_IF_ERROR(ReadReal(c.raw, "rms_norm_eps", 0, c.rms_norm_eps));
  LL_RETURN_IF_ERROR(ReadReal(c.raw, "initializer_range", 0, c.initializer_range));
  LL_RETURN_IF_ERROR(ReadRope(c.raw, c));
  return c;
}

absl::StatusOr<LlamaConfig> ReadLlamaConfig(const std::string& path) {
  if (!FileExists(path)) {
    return FieldStatus(absl::StatusCode::kNotFound, "model", absl::StrCat("no such folder: ", path),
                       "give a Hugging Face folder with config.json, tokenizer and safetensors");
  }
  const std::string file = IsDirectory(path) ? path + "/config.json" : path;
  if (!FileExists(file)) {
    return FieldStatus(absl::StatusCode::kNotFound, "model",
                       absl::StrCat("no config.json in ", path),
                       "give a Hugging Face folder with config.json, tokenizer and safetensors");
  }
  LL_ASSIGN_OR_RETURN(std::string text, ReadFile(file));
  absl::StatusOr<LlamaConfig> config = ParseLlamaConfig(text);
  // The error itself says "config.json".
  if (!config.ok()) return Annotate(config.status(), absl::StripSuffix(path, "/config.json"));
  return config;
}

json LlamaConfigToJson(const LlamaConfig& c) {
  json out = c.raw.is_object() ? c.raw : json::object();
  for (const Family& family : kFamilies) {
    if (c.model_type == family.model_type) out["architectures"] = {family.architecture};
  }
  out["model_type"] = c.model_type;
  out["hidden_act"] = "silu";
  out["vocab_size"] = c.vocab_size;
  out["hidden_size"] = c.hidden_size;
  out["intermediate_size"] = c.intermediate_size;
  out["num_hidden_layers"] = c.num_hidden_layers;
  out["num_attention_heads"] = c.num_attention_heads;
  out["num_key_value_heads"] = c.num_key_value_heads;
  out["head_dim"] = c.head_dim;
  out["max_position_embeddings"] = c.max_position_embeddings;
  out["rms_norm_eps"] = c.rms_norm_eps;
  out["initializer_range"] = c.initializer_range;
  out["tie_word_embeddings"] = c.tie_word_embeddings;
  out["dtype"] = c.dtype;
  out["torch_dtype"] = c.dtype;
  // Absent, it would be 4096 to transformers; a Qwen with a window has it from its own file.
  if (c.model_type == "mistral")
    out["sliding_window"] = c.sliding_window > 0 ? json(c.sliding_window) : json();
  if (c.HasQkvBias() || c.HasQkNorm()) out["use_sliding_window"] = c.sliding_window > 0;
  WriteRope(c, out);
  return out;
}

int64_t LlamaConfig::WindowOf(int64_t layer) const {
  return windowed_layers.empty() || windowed_layers[layer] ? sliding_window : 0;
}

int64_t LlamaConfig::ParameterCount() const {
  const int64_t q = num_attention_heads * head_dim, kv = num_key_value_heads * head_dim;
  const int64_t layer = 2 * hidden_size * q + 2 * hidden_size * kv +
                        3 * hidden_size * intermediate_size + 2 * hidden_size +
                        (HasQkvBias() ? q + 2 * kv : 0) + (HasQkNorm() ? 2 * head_dim : 0);
  return vocab_size * hidden_size * (tie_word_embeddings ? 1 : 2) + num_hidden_layers * layer +
         hidden_size;
}

std::vector<WeightShape> WeightShapes(const LlamaConfig& c) {
  const int64_t d = c.hidden_size, q = c.num_attention_heads * c.head_dim,
                kv = c.num_key_value_heads * c.head_dim;
  std::vector<WeightShape> out = {{"model.embed_tokens.weight", {c.vocab_size, d}}};
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    out.push_back({layer + "input_layernorm.weight", {d}});
    for (const auto& [name, rows] : {std::pair{"q_proj", q}, {"k_proj", kv}, {"v_proj", kv}}) {
      const std::string module = absl::StrCat(layer, "self_attn.", name);
      out.push_back({module + ".weight", {rows, d}});
      if (c.HasQkvBias()) out.push_back({module + ".bias", {rows}});
    }
    out.push_back({layer + "self_attn.o_proj.weight", {d, q}});
    if (c.HasQkNorm()) {
      out.push_back({layer + "self_attn.q_norm.weight", {c.head_dim}});
      out.push_back({layer + "self_attn.k_norm.weight", {c.head_dim}});
    }
    out.push_back({layer + "post_attention_layernorm.weight", {d}});
    out.push_back({layer + "mlp.gate_proj.weight", {c.intermediate_size, d}});
    out.push_back({layer + "mlp.up_proj.weight", {c.intermediate_size, d}});
    out.push_back({layer + "mlp.down_proj.weight", {d, c.intermediate_size}});
  }
  out.push_back({"model.norm.weight", {d}});
  if (!c.tie_word_embeddings) out.push_back({"lm_head.weight", {c.vocab_size, d}});
  return out;
}

}  // namespace ll
