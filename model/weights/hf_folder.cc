#include "model/weights/hf_folder.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"
#include "model/weights/nf4_io.h"
#include "model/weights/tensor_io.h"

namespace ll {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::Status CheckWeight(const std::string& folder, const ShardedSafetensors& files,
                         const WeightShape& want) {
  const ShardedSafetensors::Entry* entry = files.Find(want.name);
  if (entry == nullptr) {
    return FieldStatus(
        absl::StatusCode::kNotFound, folder, absl::StrCat("the weight ", want.name, " is missing"),
        "the safetensors files and config.json do not belong together, or a shard is absent");
  }
  if (IsNf4(files, want.name)) return CheckNf4(files, want.name, want.shape);
  const std::string field = absl::StrCat(entry->file->path(), ": ", want.name);
  if (entry->tensor->shape != want.shape) {
    return MakeFieldError({field,
                           absl::StrCat("shape ", ShapeText(want.shape), " as config.json says"),
                           ShapeText(entry->tensor->shape)});
  }
  const Dtype dtype = entry->tensor->dtype;
  if (dtype != Dtype::kF32 && dtype != Dtype::kBF16 && dtype != Dtype::kF16) {
    return MakeFieldError({field, "dtype F32, BF16 or F16", DtypeName(dtype)});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<HfFolder>> HfFolder::Open(const std::string& folder,
                                                         const LlamaConfig& config) {
  LL_ASSIGN_OR_RETURN(ShardedSafetensors files, ShardedSafetensors::Open(folder));
  for (const WeightShape& want : WeightShapes(config))
    LL_RETURN_IF_ERROR(CheckWeight(folder, files, want));
  return std::unique_ptr<HfFolder>(new HfFolder(std::move(files)));
}

absl::StatusOr<at::Tensor> HfFolder::Get(const std::string& hf_name) {
  const ShardedSafetensors::Entry* entry = files_.Find(hf_name);
  if (entry == nullptr) return absl::NotFoundError(absl::StrCat("no weight named ", hf_name));
  if (!IsNf4(files_, hf_name)) return TensorView(entry->file, *entry->tensor);
  LL_ASSIGN_OR_RETURN(const Nf4Tensor quantized, ReadNf4(files_, hf_name));
  at::Tensor weight;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    weight = at::empty(quantized.shape, at::kFloat);
    DequantizeNf4(quantized, weight);
    return absl::OkStatus();
  }));
  return weight;
}

absl::StatusOr<std::optional<Nf4Tensor>> HfFolder::GetNf4(const std::string& hf_name) {
  if (!IsNf4(files_, hf_name)) return std::nullopt;
  LL_ASSIGN_OR_RETURN(Nf4Tensor quantized, ReadNf4(files_, hf_name));
  return quantized;
}

void HfFolder::Release(const std::string& hf_name) {
  const ShardedSafetensors::Entry* entry = files_.Find(hf_name);
  if (entry != nullptr) entry->file->Release(*entry->tensor);
}

}  // namespace ll
