#include "model/weight_source.h"

#include <algorithm>

#include <ATen/CPUGeneratorImpl.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/random_tensor.h"

namespace ll {

absl::StatusOr<at::Tensor> RandomWeights::Get(const std::string& hf_name) {
  const std::vector<WeightShape> shapes = WeightShapes(config_);
  const auto it = std::find_if(shapes.begin(), shapes.end(),
                               [&](const WeightShape& w) { return w.name == hf_name; });
  if (it == shapes.end())
    return absl::NotFoundError(absl::StrCat("the model has no weight ", hf_name));
  const std::vector<int64_t>& shape = it->shape;
  if (absl::EndsWith(hf_name, ".bias")) return at::zeros(shape, at::kFloat);
  if (shape.size() == 1) return at::ones(shape, at::kFloat);
  at::Generator generator = NamedGenerator(seed_, hf_name);
  return at::empty(shape, at::kFloat).normal_(0.0, config_.initializer_range, generator);
}

}  // namespace ll
