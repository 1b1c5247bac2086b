// Where a model's weights come from: a Hugging Face folder (model/weights), or random values for
// tests and pre-training from scratch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <ATen/ATen.h>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "model/plan/config.h"

namespace ll {

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // The weight named as in a Hugging Face checkpoint ("model.layers.0.self_attn.q_proj.weight",
  // [out, in]), on the CPU in any floating dtype. The tensor may alias memory that the source owns
  // (a mapped file) and must not be written. NotFound where there is no such weight.
  virtual absl::StatusOr<at::Tensor> Get(const std::string& hf_name) = 0;

  // The weight as the source keeps it, where it keeps it in NF4; nullopt where it does not. Get
  // gives the dequantised values of such a weight.
  virtual absl::StatusOr<std::optional<Nf4Tensor>> GetNf4(const std::string& hf_name) {
    return std::nullopt;
  }

  // Tells that the weight's pages are not needed for now, for whoever reads weight by weight. A
  // tensor got before stays valid and is read from the disk again.
  virtual void Release(const std::string& hf_name) {}
};

// Hugging Face's initialisation: normal(0, initializer_range) for every matrix, ones for every
// norm, zeros for every bias, fp32. A weight depends on the seed and its name alone, so the order
// of the calls and the number of threads do not matter.
class RandomWeights : public WeightSource {
 public:
  RandomWeights(uint64_t seed, const LlamaConfig& config) : seed_(seed), config_(config) {}
  absl::StatusOr<at::Tensor> Get(const std::string& hf_name) override;

 private:
  uint64_t seed_;
  LlamaConfig config_;
};

}  // namespace ll
