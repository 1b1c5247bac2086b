#include "model/weights/tensor_io.h"

#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"

namespace ll {
namespace {

std::optional<at::ScalarType> ToTorch(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBool:
      return at::kBool;
    case Dtype::kU8:
      return at::kByte;
    case Dtype::kI8:
      return at::kChar;
    case Dtype::kI16:
      return at::kShort;
    case Dtype::kI32:
      return at::kInt;
    case Dtype::kI64:
      return at::kLong;
    case Dtype::kF16:
      return at::kHalf;
    case Dtype::kBF16:
      return at::kBFloat16;
    case Dtype::kF32:
      return at::kFloat;
    case Dtype::kF64:
      return at::kDouble;
    case Dtype::kU16:
    case Dtype::kU32:
    case Dtype::kU64:
      break;
  }
  return std::nullopt;
}

std::optional<Dtype> FromTorch(at::ScalarType type) {
  for (Dtype d : {Dtype::kBool, Dtype::kU8, Dtype::kI8, Dtype::kI16, Dtype::kI32, Dtype::kI64,
                  Dtype::kF16, Dtype::kBF16, Dtype::kF32, Dtype::kF64}) {
    if (ToTorch(d) == type) return d;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<at::Tensor> TensorView(std::shared_ptr<const SafetensorsFile> file,
                                      const TensorInfo& tensor) {
  const std::optional<at::ScalarType> type = ToTorch(tensor.dtype);
  if (!type) {
    return MakeFieldError({absl::StrCat(file->path(), ": ", tensor.name),
                           "a signed or floating dtype", DtypeName(tensor.dtype)});
  }
  // from_blob takes a mutable pointer; the mapping is read-only, so a stray write faults instead of
  // corrupting.
  void* data = const_cast<std::byte*>(file->Data(tensor));
  const bool aligned =
      reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(DtypeBytes(tensor.dtype)) == 0;
  if (!aligned) {
    at::Tensor copy = at::empty(tensor.shape, at::TensorOptions().dtype(*type));
    std::memcpy(copy.data_ptr(), data, static_cast<size_t>(tensor.size_bytes));
    return copy;
  }
  return at::from_blob(
      data, tensor.shape, [file](void*) {}, at::TensorOptions().dtype(*type));
}

absl::Status WriteSafetensors(const std::string& path,
                              const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  std::vector<TensorInfo> infos;
  for (const auto& [name, tensor] : tensors) {
    const std::optional<Dtype> dtype = FromTorch(tensor.scalar_type());
    if (!dtype)
      return MakeFieldError({name, "a dtype safetensors has", at::toString(tensor.scalar_type())});
    infos.push_back({.name = name, .dtype = *dtype, .shape = tensor.sizes().vec()});
  }
  LL_ASSIGN_OR_RETURN(SafetensorsWriter writer,
                      SafetensorsWriter::Create(path, std::move(infos), metadata));
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor bytes = tensor.detach().cpu().contiguous();
    LL_RETURN_IF_ERROR(writer.Append(bytes.const_data_ptr(), static_cast<int64_t>(bytes.nbytes())));
  }
  return writer.Finish();
}

}  // namespace ll
