// The values a base has once it is in NF4: what an adapter saw that was trained on a quantised
// base.
#pragma once

#include <string>

#include "model/weight_source.h"

namespace ll {

// Not thread-safe. Weights that the base keeps in NF4 pass through; the other matrices of the
// layers are quantised as they are asked for, after rounding to `trained_in`, as training does.
class Nf4Values : public WeightSource {
 public:
  // `base` must outlive this.
  Nf4Values(WeightSource& base, at::ScalarType trained_in) : base_(base), trained_in_(trained_in) {}
  absl::StatusOr<at::Tensor> Get(const std::string& hf_name) override;
  absl::StatusOr<std::optional<Nf4Tensor>> GetNf4(const std::string& hf_name) override;
  void Release(const std::string& hf_name) override { base_.Release(hf_name); }

 private:
  WeightSource& base_;
  const at::ScalarType trained_in_;
};

// A source's weights rounded to a dtype, as a folder in that dtype has them. Not thread-safe.
class RoundedWeights : public WeightSource {
 public:
  // `exact` must outlive this.
  RoundedWeights(WeightSource& exact, at::ScalarType dtype) : exact_(exact), dtype_(dtype) {}
  absl::StatusOr<at::Tensor> Get(const std::string& hf_name) override;
  void Release(const std::string& hf_name) override { exact_.Release(hf_name); }

 private:
  WeightSource& exact_;
  const at::ScalarType dtype_;
};

}  // namespace ll
