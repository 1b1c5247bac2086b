#include "model/weights/hf_writer.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "kernels/nf4/nf4.h"
#include "model/torch_edge.h"
#include "model/weights/nf4_io.h"
#include "model/weights/safetensors.h"

namespace ll {
namespace {

constexpr char kIndexFile[] = "model.safetensors.index.json";

Dtype FileDtype(const std::string& name) {
  return name == "float32" ? Dtype::kF32 : name == "float16" ? Dtype::kF16 : Dtype::kBF16;
}

// One weight and the tensors that stand for it in the file: itself, or NF4's codes and scales.
struct PlannedWeight {
  WeightShape weight;
  bool nf4 = false;
  std::vector<TensorInfo> tensors;
  int64_t bytes = 0;
};

int64_t BytesOf(const TensorInfo& tensor) {
  int64_t bytes = DtypeBytes(tensor.dtype);
  for (const int64_t size : tensor.shape) bytes *= size;
  return bytes;
}

absl::StatusOr<PlannedWeight> Plan(const WeightShape& weight, const HfWriteOptions& options) {
  PlannedWeight planned{weight};
  planned.nf4 =
      options.nf4 && absl::StartsWith(weight.name, "model.layers.") && weight.shape.size() == 2;
  if (!planned.nf4) {
    planned.tensors = {
        {.name = weight.name, .dtype = FileDtype(options.dtype), .shape = weight.shape}};
  } else {
    const int64_t elements = weight.shape[0] * weight.shape[1];
    if (elements % kNf4Block != 0) {
      return MakeFieldError({weight.name,
                             absl::StrCat("a multiple of ", kNf4Block, " elements, as NF4 needs"),
                             absl::StrCat(elements)});
    }
    planned.tensors = Nf4TensorInfos(weight.name, weight.shape);
  }
  for (const TensorInfo& tensor : planned.tensors) planned.bytes += BytesOf(tensor);
  return planned;
}

// Shards in order, each filled until the next weight would not fit.
using Shard = std::vector<PlannedWeight>;
absl::StatusOr<std::vector<Shard>> PlanShards(const LlamaConfig& config,
                                              const HfWriteOptions& options) {
  std::vector<Shard> shards;
  int64_t bytes = 0;
  for (const WeightShape& weight : WeightShapes(config)) {
    LL_ASSIGN_OR_RETURN(PlannedWeight planned, Plan(weight, options));
    if (shards.empty() || bytes + planned.bytes > options.max_shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += planned.bytes;
    shards.back().push_back(std::move(planned));
  }
  return shards;
}

// Piece by piece: torch's own test, and a sum of 16-bit values in fp64, make a copy of the whole.
bool IsFinite(const at::Tensor& values) {
  constexpr int64_t kPiece = 1 << 20;
  const at::Tensor flat = values.view({-1});
  for (int64_t begin = 0; begin < flat.numel(); begin += kPiece) {
    // A sum in fp64 of finite values is finite.
    const at::Tensor piece = flat.slice(0, begin, std::min(begin + kPiece, flat.numel()));
    if (!std::isfinite(piece.sum(at::kDouble).item<double>())) return false;
  }
  return true;
}

class Writer {
 public:
  Writer(WeightSource& source, const HfWriteOptions& options)
      : source_(source), options_(options) {}

  absl::Status WriteShard(const std::string& path, const Shard& shard) {
    std::vector<TensorInfo> tensors;
    for (const PlannedWeight& planned : shard)
      tensors.insert(tensors.end(), planned.tensors.begin(), planned.tensors.end());
    LL_ASSIGN_OR_RETURN(SafetensorsWriter file, SafetensorsWriter::Create(path, tensors));
    for (const PlannedWeight& planned : shard) {
      if (options_.stop()) return absl::CancelledError("stopped on request");
      LL_RETURN_IF_ERROR(WriteWeight(planned, file));
      source_.Release(planned.weight.name);
      written_.bytes += planned.bytes;
    }
    return file.Finish();
  }
  HfWritten& written() { return written_; }

 private:
  absl::Status WriteWeight(const PlannedWeight& planned, SafetensorsWriter& file) {
    const std::string& name = planned.weight.name;
    LL_ASSIGN_OR_RETURN(at::Tensor values, source_.Get(name));
    if (values.sizes().vec() != planned.weight.shape) {
      return FieldStatus(absl::StatusCode::kFailedPrecondition, name,
                         "has another shape than config.json says");
    }
    LL_RETURN_IF_ERROR(TorchTry([&] {
      values = values.to(TorchDtype(options_.dtype)).contiguous();
      return absl::OkStatus();
    }));
    if (!IsFinite(values)) {
      return MakeFieldError({name, absl::StrCat("finite values in ", options_.dtype),
                             "infinite ones, or none",
                             options_.dtype == "float16" ? "fp16 ends at 65504: write bf16 or fp32"
                                                         : "the weights are damaged"});
    }
    if (!planned.nf4) return Append(values, file);
    return WriteNf4(name, values, file);
  }

  absl::Status WriteNf4(const std::string& name, const at::Tensor& values,
                        SafetensorsWriter& file) {
    // fp16 has no kernel of its own; fp32 holds its values exactly.
    const Nf4Tensor q =
        QuantizeNf4(values.scalar_type() == at::kHalf ? values.to(at::kFloat) : values);
    written_.nf4_elements += values.numel();
    written_.nf4_bytes += static_cast<int64_t>(q.codes.nbytes() + q.absmax.nbytes() +
                                               q.nested_absmax.nbytes() + sizeof q.offset);
    for (const auto& [tensor_name, tensor] : Nf4Tensors(name, q, options_.dtype))
      LL_RETURN_IF_ERROR(Append(tensor.contiguous(), file));
    return absl::OkStatus();
  }

  static absl::Status Append(const at::Tensor& tensor, SafetensorsWriter& file) {
    return file.Append(tensor.const_data_ptr(), static_cast<int64_t>(tensor.nbytes()));
  }

  WeightSource& source_;
  const HfWriteOptions& options_;
  HfWritten written_;
};

absl::Status WriteIndex(const std::string& folder, const std::vector<Shard>& shards,
                        const LlamaConfig& config, HfWritten& written) {
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const PlannedWeight& planned : shards[i]) {
      for (const TensorInfo& tensor : planned.tensors) map[tensor.name] = written.files[i];
    }
  }
  const nlohmann::ordered_json index = {
      {"metadata", {{"total_parameters", config.ParameterCount()}, {"total_size", written.bytes}}},
      {"weight_map", map}};
  written.files.push_back(kIndexFile);
  return WriteFileAtomic(absl::StrCat(folder, "/", kIndexFile), index.dump(2) + "\n");
}

}  // namespace

at::ScalarType TorchDtype(const std::string& name) {
  return name == "float32" ? at::kFloat : name == "float16" ? at::kHalf : at::kBFloat16;
}

absl::StatusOr<HfWritten> WriteHfWeights(WeightSource& source, const LlamaConfig& config,
                                         const std::string& folder, const HfWriteOptions& options) {
  LL_ASSIGN_OR_RETURN(const std::vector<Shard> shards, PlanShards(config, options));
  Writer writer(source, options);
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? "model.safetensors"
                                                : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                                                  i + 1, shards.size());
    LL_RETURN_IF_ERROR(writer.WriteShard(absl::StrCat(folder, "/", name), shards[i]));
    writer.written().files.push_back(name);
  }
  if (shards.size() > 1) LL_RETURN_IF_ERROR(WriteIndex(folder, shards, config, writer.written()));
  return writer.written();
}

}  // namespace ll
