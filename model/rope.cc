#include "model/rope.h"

#include <algorithm>
#include <cmath>

namespace ll {
namespace {

// theta^(2i / D) for i in [0, D / 2), fp32. `theta` is a number or an fp32 scalar tensor.
template <typename Theta>
at::Tensor Wavelengths(const Theta& theta, int64_t head_dim) {
  return at::pow(theta, at::arange(0, head_dim, 2, at::kFloat) / static_cast<double>(head_dim));
}

at::Tensor PlainFrequencies(double theta, int64_t head_dim) {
  return Wavelengths(at::Scalar(theta), head_dim).reciprocal();
}

// Context the model was trained for, before scaling.
double OriginalLength(const LlamaConfig& config) {
  return static_cast<double>(config.rope.original_max_position_embeddings > 0
                                 ? config.rope.original_max_position_embeddings
                                 : config.max_position_embeddings);
}

double NtkExponent(const LlamaConfig& config) {
  return static_cast<double>(config.head_dim) / static_cast<double>(config.head_dim - 2);
}

// NTK-aware: theta grows so that the lowest frequency is divided by the factor and the highest
// stays.
at::Tensor NtkFrequencies(const LlamaConfig& config) {
  const double theta = config.rope_theta * std::pow(config.rope.factor, NtkExponent(config));
  return PlainFrequencies(theta, config.head_dim);
}

// NTK with s = factor * L / max_position_embeddings - (factor - 1) of the length L at hand, and
// s = 1 up to max_position_embeddings. In fp32 from the length on, as transformers has it.
at::Tensor DynamicNtkFrequencies(const LlamaConfig& config, int64_t tokens) {
  if (tokens <= config.max_position_embeddings)
    return PlainFrequencies(config.rope_theta, config.head_dim);
  const at::Tensor length = at::scalar_tensor(tokens, at::kLong);
  const at::Tensor scale =
      length * config.rope.factor / config.max_position_embeddings - (config.rope.factor - 1);
  return Wavelengths(scale.pow(NtkExponent(config)) * config.rope_theta, config.head_dim)
      .reciprocal();
}

// YaRN (Peng et al. 2023, "NTK-by-parts"): dimensions that turn often in the original context keep
// their frequency, slow ones are interpolated, with a linear ramp between.
at::Tensor YarnFrequencies(const LlamaConfig& config) {
  const RopeScaling& rope = config.rope;
  const double d = static_cast<double>(config.head_dim);
  const auto dimension_of = [&](double turns) {
    return d * std::log(OriginalLength(config) / (turns * 2 * M_PI)) /
           (2 * std::log(config.rope_theta));
  };
  double low = dimension_of(rope.beta_fast), high = dimension_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, d - 1);
  if (low == high) high += 0.001;
  const at::Tensor ramp =
      ((at::arange(config.head_dim / 2, at::kFloat) - low) / (high - low)).clamp(0, 1);
  const at::Tensor keep = 1 - ramp;
  const at::Tensor wavelengths = Wavelengths(at::Scalar(config.rope_theta), config.head_dim);
  return (wavelengths * rope.factor).reciprocal() * (1 - keep) + wavelengths.reciprocal() * keep;
}

// Llama 3.1: wavelengths beyond original/low_freq_factor are interpolated, short ones kept, a
// smooth blend between.
at::Tensor Llama3Frequencies(const LlamaConfig& config) {
  const RopeScaling& rope = config.rope;
  const double original = OriginalLength(config);
  const at::Tensor f = PlainFrequencies(config.rope_theta, config.head_dim);
  const at::Tensor wavelength = f.reciprocal() * (2 * M_PI);
  const at::Tensor is_long = wavelength > original / rope.low_freq_factor;
  const at::Tensor is_short = wavelength < original / rope.high_freq_factor;
  const at::Tensor keep = (wavelength.reciprocal() * original - rope.low_freq_factor) /
                          (rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor blend = (1 - keep) * f / rope.factor + keep * f;
  return at::where(is_long, f / rope.factor, at::where(is_short, f, blend));
}

}  // namespace

RopeTable MakeRopeTable(const LlamaConfig& config, int64_t tokens) {
  const RopeScaling& rope = config.rope;
  switch (rope.type) {
    case RopeScaling::Type::kNone:
      break;
    case RopeScaling::Type::kLinear:
      return {PlainFrequencies(config.rope_theta, config.head_dim) / rope.factor};
    case RopeScaling::Type::kNtk:
      return {NtkFrequencies(config)};
    case RopeScaling::Type::kDynamicNtk:
      return {DynamicNtkFrequencies(config, tokens)};
    case RopeScaling::Type::kYarn:
      return {YarnFrequencies(config), rope.attention_factor.value_or(
                                           rope.factor <= 1 ? 1 : 0.1 * std::log(rope.factor) + 1)};
    case RopeScaling::Type::kLlama3:
      return {Llama3Frequencies(config)};
  }
  return {PlainFrequencies(config.rope_theta, config.head_dim)};
}

std::pair<at::Tensor, at::Tensor> CosSin(const RopeTable& table, int64_t tokens, int64_t first) {
  at::Tensor angle =
      at::arange(first, first + tokens, at::kFloat).unsqueeze(1) * table.inverse_frequencies;
  at::Tensor cos = angle.cos();
  at::Tensor sin = angle.sin_();  // in place: at 100,000 tokens a table has 25 MB
  if (table.attention_factor != 1.0) {
    cos.mul_(table.attention_factor);
    sin.mul_(table.attention_factor);
  }
  return {cos, sin};
}

}  // namespace ll
