#include "worker/trainer/merge/nf4_values.h"

#include "absl/strings/match.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"

namespace ll {

absl::StatusOr<std::optional<Nf4Tensor>> Nf4Values::GetNf4(const std::string& hf_name) {
  LL_ASSIGN_OR_RETURN(std::optional<Nf4Tensor> kept, base_.GetNf4(hf_name));
  if (kept || !absl::StartsWith(hf_name, "model.layers.")) return kept;
  LL_ASSIGN_OR_RETURN(const at::Tensor weight, base_.Get(hf_name));
  if (weight.dim() != 2) return std::nullopt;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    kept = QuantizeNf4(weight.to(trained_in_).contiguous());
    return absl::OkStatus();
  }));
  return kept;
}

absl::StatusOr<at::Tensor> Nf4Values::Get(const std::string& hf_name) {
  LL_ASSIGN_OR_RETURN(const std::optional<Nf4Tensor> quantized, GetNf4(hf_name));
  if (!quantized) return base_.Get(hf_name);
  at::Tensor weight;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    weight = at::empty(quantized->shape, at::kFloat);
    DequantizeNf4(*quantized, weight);
    return absl::OkStatus();
  }));
  return weight;
}

absl::StatusOr<at::Tensor> RoundedWeights::Get(const std::string& hf_name) {
  LL_ASSIGN_OR_RETURN(const at::Tensor exact, exact_.Get(hf_name));
  at::Tensor rounded;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    rounded = exact.to(dtype_);
    return absl::OkStatus();
  }));
  return rounded;
}

}  // namespace ll
