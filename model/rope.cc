#include "model/rope.h"

#include <algorithm>
#include <cmath>

namespace ll {
namespace {

std::vector<double> PlainFrequencies(double theta, int64_t head_dim) {
  std::vector<double> f(head_dim / 2);
  for (size_t i = 0; i < f.size(); ++i)
    f[i] = std::pow(theta, -2.0 * static_cast<double>(i) / head_dim);
  return f;
}

// Context the model was trained for, before scaling.
double OriginalLength(const LlamaConfig& config) {
  return static_cast<double>(config.rope.original_max_position_embeddings > 0
                                 ? config.rope.original_max_position_embeddings
                                 : config.max_position_embeddings);
}

// NTK-aware: theta grows so that the lowest frequency is divided by `scale` and the highest stays.
double NtkTheta(const LlamaConfig& config, double scale) {
  return config.rope_theta *
         std::pow(scale, static_cast<double>(config.head_dim) / (config.head_dim - 2));
}

// YaRN (Peng et al. 2023, "NTK-by-parts"): dimensions that turn often in the original context keep
// their frequency, slow ones are interpolated, with a linear ramp between.
void ScaleYarn(const LlamaConfig& config, std::vector<double>& f) {
  const RopeScaling& rope = config.rope;
  const auto dimension_of = [&](double turns) {
    return config.head_dim * std::log(OriginalLength(config) / (turns * 2 * M_PI)) /
           (2 * std::log(config.rope_theta));
  };
  const double low = std::max(std::floor(dimension_of(rope.beta_fast)), 0.0);
  double high =
      std::min(std::ceil(dimension_of(rope.beta_slow)), static_cast<double>(config.head_dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < f.size(); ++i) {
    const double interpolated = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    f[i] = f[i] / rope.factor * interpolated + f[i] * (1 - interpolated);
  }
}

// Llama 3.1: wavelengths beyond original/low_freq_factor are interpolated, short ones kept, a
// smooth blend between.
void ScaleLlama3(const LlamaConfig& config, std::vector<double>& f) {
  const RopeScaling& rope = config.rope;
  const double original = OriginalLength(config);
  for (double& frequency : f) {
    const double turns = original * frequency / (2 * M_PI);
    const double keep = std::clamp(
        (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
    frequency = (1 - keep) * frequency / rope.factor + keep * frequency;
  }
}

}  // namespace

RopeTable MakeRopeTable(const LlamaConfig& config, int64_t tokens) {
  const RopeScaling& rope = config.rope;
  RopeTable table;
  std::vector<double> f = PlainFrequencies(config.rope_theta, config.head_dim);
  switch (rope.type) {
    case RopeScaling::Type::kNone:
      break;
    case RopeScaling::Type::kLinear:
      for (double& x : f) x /= rope.factor;
      break;
    case RopeScaling::Type::kNtk:
      f = PlainFrequencies(NtkTheta(config, rope.factor), config.head_dim);
      break;
    case RopeScaling::Type::kDynamicNtk: {
      const double reach = OriginalLength(config);
      const double length = std::max(static_cast<double>(tokens), reach);
      f = PlainFrequencies(NtkTheta(config, rope.factor * length / reach - (rope.factor - 1)),
                           config.head_dim);
      break;
    }
    case RopeScaling::Type::kYarn:
      ScaleYarn(config, f);
      table.attention_factor =
          rope.attention_factor.value_or(rope.factor <= 1 ? 1 : 0.1 * std::log(rope.factor) + 1);
      break;
    case RopeScaling::Type::kLlama3:
      ScaleLlama3(config, f);
      break;
  }
  table.inverse_frequencies.assign(f.begin(), f.end());
  return table;
}

void FillCosSin(const RopeTable& table, int64_t tokens, float* cos, float* sin) {
  const int64_t half = static_cast<int64_t>(table.inverse_frequencies.size());
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(t) * table.inverse_frequencies[i];
      cos[t * half + i] =
          static_cast<float>(std::cos(static_cast<double>(angle)) * table.attention_factor);
      sin[t * half + i] =
          static_cast<float>(std::sin(static_cast<double>(angle)) * table.attention_factor);
    }
  }
}

}  // namespace ll
