// Position scaling in config.json: both spellings, and extending what may have been extended
// before.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/plan/config.h"
#include "model/plan/config_internal.h"

namespace ll {
namespace {

using nlohmann::json;
using Type = RopeScaling::Type;

// NTK-aware scaling has no spelling of its own in Hugging Face folders: it is a larger rope_theta.
// This key keeps theta and factor apart, so that the folder can be extended again.
constexpr char kNtkKey[] = "ntk_scaling";
constexpr double kMaxFactor = 1e6, kMaxTheta = 1e15;

// theta' = theta * factor^(D / (D - 2)), D = head_dim (NTK-aware interpolation, bloc97 2023).
double NtkTheta(double theta, double factor, int64_t head_dim) {
  return theta *
         std::pow(factor, static_cast<double>(head_dim) / static_cast<double>(head_dim - 2));
}

absl::Status TypeFromFile(const json& rope, Type& type) {
  json name = rope.value("rope_type", json());
  if (name.is_null()) name = rope.value("type", json());
  if (name.is_null() || name == "default") {
    type = Type::kNone;
  } else if (name == "linear") {
    type = Type::kLinear;
  } else if (name == "dynamic") {
    type = Type::kDynamicNtk;
  } else if (name == "yarn") {
    type = Type::kYarn;
  } else if (name == "llama3") {
    type = Type::kLlama3;
  } else {
    return ConfigError("rope_scaling", "type default, linear, dynamic, yarn or llama3",
                       name.dump(-1, ' ', false, json::error_handler_t::replace));
  }
  return absl::OkStatus();
}

const char* TypeName(Type type) {
  switch (type) {
    case Type::kLinear:
      return "linear";
    case Type::kDynamicNtk:
      return "dynamic";
    case Type::kYarn:
      return "yarn";
    case Type::kLlama3:
      return "llama3";
    case Type::kNone:
    case Type::kNtk:
      break;  // written as a larger rope_theta
  }
  return "default";
}

absl::Status ReadOriginal(const json& from, int64_t& out) {
  double original = 0;
  LL_RETURN_IF_ERROR(ReadReal(from, "original_max_position_embeddings", 0, original));
  if (original > 1e9)
    return ConfigError("original_max_position_embeddings", "at most 1e9", absl::StrCat(original));
  out = static_cast<int64_t>(original);
  return absl::OkStatus();
}

absl::Status ReadScaling(const json& rope, RopeScaling& out) {
  if (!rope.is_object()) return ConfigError("rope_scaling", "an object", "another type");
  for (const json& value : rope) {
    if (value.is_object()) return ConfigError("rope_scaling", "one for all layers", "one for some");
  }
  const json share = rope.value("partial_rotary_factor", json());
  if (!share.is_null() && share != 1)
    return ConfigError("rope_scaling partial_rotary_factor", "1", JsonExcerpt(share));
  LL_RETURN_IF_ERROR(TypeFromFile(rope, out.type));
  LL_RETURN_IF_ERROR(ReadOriginal(rope, out.original_max_position_embeddings));
  if (out.type == Type::kNone) return absl::OkStatus();
  if (!rope.contains("factor")) return ConfigError("rope_scaling factor", "a number", "nothing");
  LL_RETURN_IF_ERROR(ReadReal(rope, "factor", 0, out.factor));
  if (out.factor < 1 || out.factor > kMaxFactor) {
    return ConfigError("rope_scaling factor", "a number from 1 to 1e6", absl::StrCat(out.factor));
  }
  LL_RETURN_IF_ERROR(ReadReal(rope, "beta_fast", 0, out.beta_fast));
  LL_RETURN_IF_ERROR(ReadReal(rope, "beta_slow", 0, out.beta_slow));
  LL_RETURN_IF_ERROR(ReadReal(rope, "low_freq_factor", 0, out.low_freq_factor));
  LL_RETURN_IF_ERROR(ReadReal(rope, "high_freq_factor", 0, out.high_freq_factor));
  if (rope.contains("truncate") && !rope["truncate"].is_null()) {
    if (!rope["truncate"].is_boolean())
      return ConfigError("rope_scaling truncate", "true or false", "another type");
    out.truncate = rope["truncate"].get<bool>();
  }
  if (rope.contains("attention_factor") && !rope["attention_factor"].is_null()) {
    out.attention_factor = 1.0;
    LL_RETURN_IF_ERROR(ReadReal(rope, "attention_factor", 0, *out.attention_factor));
  }
  // YaRN variants that change the attention temperature in other ways than transformers' default.
  for (const char* field : {"mscale", "mscale_all_dim"}) {
    if (rope.contains(field))
      return ConfigError(absl::StrCat("rope_scaling ", field), "nothing", "a value");
  }
  return absl::OkStatus();
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

absl::Status ReadRope(const json& raw, LlamaConfig& c) {
  LL_RETURN_IF_ERROR(ReadReal(raw, "rope_theta", 0, c.rope_theta));
  for (const char* spelling : {"rope_scaling", "rope_parameters"}) {
    if (!raw.contains(spelling) || raw[spelling].is_null() || raw[spelling].empty()) continue;
    LL_RETURN_IF_ERROR(ReadScaling(raw[spelling], c.rope));
    LL_RETURN_IF_ERROR(ReadReal(raw[spelling], "rope_theta", 0, c.rope_theta));
    break;  // where both are there, rope_scaling counts, as in transformers
  }
  if (c.rope_theta > kMaxTheta)
    return ConfigError("rope_theta", "at most 1e15", absl::StrCat(c.rope_theta));
  const bool by_original = c.rope.type == Type::kYarn || c.rope.type == Type::kLlama3;
  const int64_t nested = c.rope.original_max_position_embeddings;
  if (nested == 0) {
    LL_RETURN_IF_ERROR(ReadOriginal(raw, c.rope.original_max_position_embeddings));
  } else if (by_original) {
    // Of two that differ transformers 4 takes the one beside the factor, 5 the other.
    int64_t outer = 0;
    LL_RETURN_IF_ERROR(ReadOriginal(raw, outer));
    if (outer != 0 && outer != nested) {
      return ConfigError("original_max_position_embeddings",
                         absl::StrCat("rope_scaling's ", nested), absl::StrCat(outer));
    }
  }
  // Where the file is silent, transformers scales YaRN and Llama 3 from max_position_embeddings,
  // and dynamic NTK from it whatever the file says.
  if (c.rope.type == Type::kDynamicNtk ||
      (by_original && c.rope.original_max_position_embeddings == 0)) {
    c.rope.original_max_position_embeddings = c.max_position_embeddings;
  }
  if (c.rope.type == Type::kLlama3 && c.rope.high_freq_factor <= c.rope.low_freq_factor) {
    return ConfigError("rope_scaling high_freq_factor",
                       absl::StrCat("a number > low_freq_factor (", c.rope.low_freq_factor, ")"),
                       absl::StrCat(c.rope.high_freq_factor));
  }
  if (raw.contains(kNtkKey) && raw[kNtkKey].is_object()) {
    double factor = 1, theta = c.rope_theta;
    LL_RETURN_IF_ERROR(ReadReal(raw[kNtkKey], "factor", 0, factor));
    LL_RETURN_IF_ERROR(ReadReal(raw[kNtkKey], "rope_theta", 0, theta));
    // Another program may have changed rope_theta since; then the key no longer speaks of this
    // file.
    if (std::fabs(NtkTheta(theta, factor, c.head_dim) / c.rope_theta - 1) < 1e-9 &&
        c.rope.type == Type::kNone && factor >= 1 && factor <= kMaxFactor) {
      c.rope.type = Type::kNtk;
      c.rope.factor = factor;
      c.rope_theta = theta;
    }
  }
  return absl::OkStatus();
}

void WriteRope(const LlamaConfig& c, json& out) {
  const bool ntk = c.rope.type == Type::kNtk;
  const double theta = ntk ? NtkTheta(c.rope_theta, c.rope.factor, c.head_dim) : c.rope_theta;
  out["rope_theta"] = theta;
  out.erase("rope_scaling");
  out.erase("rope_parameters");
  out.erase("original_max_position_embeddings");
  out.erase(kNtkKey);
  if (ntk) out[kNtkKey] = {{"factor", c.rope.factor}, {"rope_theta", c.rope_theta}};
  json rope = {{"rope_type", TypeName(c.rope.type)}};
  if (c.rope.original_max_position_embeddings > 0) {
    rope["original_max_position_embeddings"] = c.rope.original_max_position_embeddings;
  }
  const bool scaled = c.rope.type != Type::kNone && !ntk;
  if (scaled) rope["factor"] = c.rope.factor;
  if (c.rope.type == Type::kYarn) {
    rope["beta_fast"] = c.rope.beta_fast;
    rope["beta_slow"] = c.rope.beta_slow;
    if (!c.rope.truncate) rope["truncate"] = false;
    if (c.rope.attention_factor) rope["attention_factor"] = *c.rope.attention_factor;
  }
  if (c.rope.type == Type::kLlama3) {
    rope["low_freq_factor"] = c.rope.low_freq_factor;
    rope["high_freq_factor"] = c.rope.high_freq_factor;
  }
  if (scaled) {
    out["rope_scaling"] = rope;
    out["rope_scaling"]["type"] = TypeName(c.rope.type);  // transformers before 4.43
    out["rope_scaling"]["rope_theta"] =
        theta;  // transformers 5 reads rope_scaling where both are there
  }
  out["rope_parameters"] = rope;
  out["rope_parameters"]["rope_theta"] = theta;
}

int64_t LlamaConfig::OriginalContext() const {
  if (rope.original_max_position_embeddings > 0) return rope.original_max_position_embeddings;
  const double factor = rope.type == Type::kNone ? 1.0 : rope.factor;
  return std::max<int64_t>(1, std::llround(static_cast<double>(max_position_embeddings) / factor));
}

int64_t LlamaConfig::Reach() const {
  if (rope.type == Type::kNone || rope.original_max_position_embeddings == 0)
    return max_position_embeddings;
  return std::max(max_position_embeddings,
                  static_cast<int64_t>(static_cast<double>(rope.original_max_position_embeddings) *
                                       rope.factor));
}

RopeScaling::Type RopeTypeFromName(absl::string_view name) {
  if (name == "linear") return Type::kLinear;
  if (name == "ntk") return Type::kNtk;
  if (name == "dynamic") return Type::kDynamicNtk;
  if (name == "yarn") return Type::kYarn;
  if (name == "llama3") return Type::kLlama3;
  return Type::kNone;
}

absl::StatusOr<LlamaConfig> ExtendContext(const LlamaConfig& config, int64_t target_context,
                                          RopeScaling::Type type,
                                          int64_t original_context_override) {
  if (target_context <= 0) {
    return MakeFieldError(
        {"context_length", "a positive number of tokens", absl::StrCat(target_context)});
  }
  LlamaConfig out = config;
  out.max_position_embeddings = std::max(config.max_position_embeddings, target_context);
  const bool overridden = original_context_override > 0;
  if (type == Type::kNone) return out;
  if (!overridden && target_context <= config.Reach()) {
    out.max_position_embeddings = config.max_position_embeddings;
    return out;
  }
  const Type before = config.rope.type;
  if (before == Type::kLlama3 && type == Type::kLinear) type = Type::kLlama3;
  if (before != Type::kNone && before != type) {
    const std::string name = before == Type::kNtk ? "ntk" : TypeName(before);
    return FieldStatus(
        absl::StatusCode::kInvalidArgument, "rope",
        absl::StrCat("the model's positions are already scaled in another way (", name, ")"),
        absl::StrCat("use rope: ", name, ", or start from the model that was not scaled"));
  }
  const int64_t original = overridden ? original_context_override : config.OriginalContext();
  if (overridden || before == Type::kNone || config.rope.original_max_position_embeddings > 0) {
    out.rope.factor = static_cast<double>(CeilDiv(target_context, original));
  } else {
    out.rope.factor =
        config.rope.factor * static_cast<double>(CeilDiv(target_context, config.Reach()));
  }
  if (out.rope.factor != config.rope.factor)
    out.rope.attention_factor.reset();  // follows the factor
  out.rope.type = out.rope.factor > 1 ? type : Type::kNone;
  out.rope.original_max_position_embeddings = original;
  // What is written must be readable.
  if (out.rope.factor > kMaxFactor || (type == Type::kNtk && config.head_dim <= 2) ||
      (type == Type::kNtk && NtkTheta(out.rope_theta, out.rope.factor, out.head_dim) > kMaxTheta)) {
    return MakeFieldError({"context_length", "an extension that the model's positions can take",
                           absl::StrCat("a factor of ", out.rope.factor)});
  }
  if (out.rope.type == Type::kDynamicNtk) out.max_position_embeddings = original;
  return out;
}

absl::Status CheckContextLength(const LlamaConfig& config, int64_t context_length,
                                int64_t original_context_override) {
  if (context_length <= 0) {
    return MakeFieldError(
        {"context_length", "a positive number of tokens", absl::StrCat(context_length)});
  }
  const int64_t original =
      original_context_override > 0 ? original_context_override : config.OriginalContext();
  if (context_length >= original) return absl::OkStatus();
  return MakeFieldError({"context_length",
                         absl::StrCat("at least the model's original context of ", original),
                         absl::StrCat(context_length),
                         absl::StrCat("to train at less on purpose set original_context_length to ",
                                      context_length)});
}

}  // namespace ll
