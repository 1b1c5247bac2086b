#include "model/weight_source.h"

#include <algorithm>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

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
  at::Tensor weight = at::empty(shape, at::kFloat);
  const at::Tensor flat = weight.view(-1);
  // Pieces with a stream each, so that all threads draw. The first is the weight's own, so that
  // small weights are what they would be without pieces.
  constexpr int64_t kPiece = 1 << 21;
  at::parallel_for(0, (flat.numel() + kPiece - 1) / kPiece, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      at::Generator generator =
          NamedGenerator(seed_, i == 0 ? hf_name : absl::StrCat(hf_name, " ", i));
      flat.narrow(0, i * kPiece, std::min(kPiece, flat.numel() - i * kPiece))
          .normal_(0.0, config_.initializer_range, generator);
    }
  });
  return weight;
}

}  // namespace ll
