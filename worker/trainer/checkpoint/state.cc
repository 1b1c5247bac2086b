#include "worker/trainer/checkpoint/state.h"

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"
#include "model/weights/tensor_io.h"
#include "worker/trainer/checkpoint/format.h"

namespace ll {
namespace {

absl::Status CopyFrom(const std::shared_ptr<const SafetensorsFile>& file, const std::string& name,
                      at::Tensor destination) {
  const TensorInfo* info = file->Find(name);
  if (info == nullptr) return MakeFieldError({file->path(), "tensor " + name, "none"});
  LL_ASSIGN_OR_RETURN(const at::Tensor source, TensorView(file, *info));
  if (source.sizes() != destination.sizes() || source.scalar_type() != destination.scalar_type()) {
    return MakeFieldError({file->path(), absl::StrCat(name, " as this job's spec makes it"),
                           "another shape or dtype"});
  }
  destination.copy_(source);
  return absl::OkStatus();
}

}  // namespace

NamedTensors OptimizerTensors(const std::vector<Parameter>& parameters, AdamWOptimizer& optimizer,
                              bool copy) {
  const auto held = [copy](const at::Tensor& t) { return copy ? t.clone() : t; };
  NamedTensors tensors;
  for (size_t i = 0; i < parameters.size(); ++i) {
    tensors.emplace_back("master." + parameters[i].name, held(parameters[i].master));
    tensors.emplace_back("exp_avg." + parameters[i].name, held(optimizer.exp_avg()[i]));
    tensors.emplace_back("exp_avg_sq." + parameters[i].name, held(optimizer.exp_avg_sq()[i]));
  }
  return tensors;
}

absl::Status RestoreTensors(const std::string& checkpoint, Llama& model,
                            AdamWOptimizer& optimizer) {
  LL_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(checkpoint + "/" + kOptimizerFile));
  const absl::Status copied = TorchTry([&]() -> absl::Status {
    std::vector<Parameter>& parameters = model.parameters();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const std::string& name = parameters[i].name;
      LL_RETURN_IF_ERROR(CopyFrom(file, "master." + name, parameters[i].master));
      LL_RETURN_IF_ERROR(CopyFrom(file, "exp_avg." + name, optimizer.exp_avg()[i]));
      LL_RETURN_IF_ERROR(CopyFrom(file, "exp_avg_sq." + name, optimizer.exp_avg_sq()[i]));
    }
    return absl::OkStatus();
  });
  LL_RETURN_IF_ERROR(copied);
  model.CastMastersToCompute();
  return absl::OkStatus();
}

}  // namespace ll
