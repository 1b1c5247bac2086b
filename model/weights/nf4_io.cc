#include "model/weights/nf4_io.h"

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "kernels/nf4/nf4.h"
#include "model/weights/tensor_io.h"

namespace ll {
namespace {

using nlohmann::json;

constexpr char kAbsmax[] = ".absmax";
constexpr char kNestedAbsmax[] = ".nested_absmax";
constexpr char kNestedMap[] = ".nested_quant_map";
constexpr char kMap[] = ".quant_map";
constexpr char kState[] = ".quant_state.bitsandbytes__nf4";
// Every state is padded with spaces to this, so that a file's header can be written before its
// weights are quantised.
constexpr int64_t kStateBytes = 256;
// A state that is longer is no state.
constexpr int64_t kMaxStateBytes = 1 << 16;
constexpr JsonLimits kStateLimits{.max_depth = 4, .max_values = 1000};

int64_t Numel(const std::vector<int64_t>& shape) {
  int64_t numel = 1;
  for (int64_t size : shape) numel *= size;
  return numel;
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

absl::StatusOr<const ShardedSafetensors::Entry*> FindTensor(const ShardedSafetensors& files,
                                                            const std::string& name, Dtype dtype,
                                                            const std::vector<int64_t>& shape) {
  const ShardedSafetensors::Entry* entry = files.Find(name);
  if (entry == nullptr) {
    return FieldStatus(absl::StatusCode::kNotFound, name, "is missing beside the quantised weight",
                       "quantise the model again");
  }
  if (entry->tensor->dtype == dtype && entry->tensor->shape == shape) return entry;
  const auto text = [](const std::vector<int64_t>& s) {
    return absl::StrCat("[", absl::StrJoin(s, ", "), "]");
  };
  return MakeFieldError(
      {absl::StrCat(entry->file->path(), ": ", name), absl::StrCat(DtypeName(dtype), text(shape)),
       absl::StrCat(DtypeName(entry->tensor->dtype), text(entry->tensor->shape))});
}

absl::StatusOr<json> ReadState(const ShardedSafetensors& files, const std::string& name) {
  const ShardedSafetensors::Entry* entry = files.Find(name + kState);
  if (entry == nullptr || entry->tensor->dtype != Dtype::kU8 ||
      entry->tensor->size_bytes > kMaxStateBytes) {
    return MakeFieldError({absl::StrCat(name, kState), "the quantisation's state as JSON",
                           entry == nullptr ? "nothing" : "something else"});
  }
  const char* text = reinterpret_cast<const char*>(entry->file->Data(*entry->tensor));
  auto state =
      ParseJsonObject({text, static_cast<size_t>(entry->tensor->size_bytes)}, kStateLimits);
  if (state.ok()) return state;
  return Annotate(state.status(), absl::StrCat(entry->file->path(), ": ", name, kState));
}

absl::Status CheckState(const ShardedSafetensors& files, const std::string& name,
                        const std::vector<int64_t>& shape) {
  LL_ASSIGN_OR_RETURN(const json state, ReadState(files, name));
  const json want = {{"quant_type", "nf4"},
                     {"blocksize", kNf4Block},
                     {"nested_blocksize", kNf4NestedBlock},
                     {"nested_dtype", "float32"},
                     {"shape", shape}};
  for (const auto& [key, value] : want.items()) {
    const json found = state.value(key, json());
    if (found != value) {
      return MakeFieldError(
          {absl::StrCat(name, kState, " ", key), value.dump(),
           found.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 80)});
    }
  }
  const json offset = state.value("nested_offset", json());
  if (offset.is_number() && std::isfinite(offset.get<double>())) return absl::OkStatus();
  return MakeFieldError({absl::StrCat(name, kState, " nested_offset"), "a number", offset.dump()});
}

absl::Status CheckMap(const ShardedSafetensors& files, const std::string& name,
                      const at::Tensor& want) {
  LL_ASSIGN_OR_RETURN(const ShardedSafetensors::Entry* entry,
                      FindTensor(files, name, Dtype::kF32, {want.numel()}));
  LL_ASSIGN_OR_RETURN(const at::Tensor found, TensorView(entry->file, *entry->tensor));
  if (at::allclose(found, want, 1e-6, 1e-9)) return absl::OkStatus();
  return MakeFieldError({absl::StrCat(entry->file->path(), ": ", name),
                         "the values of NF4 and of its 8-bit map", "others"});
}

}  // namespace

bool IsNf4(const ShardedSafetensors& files, const std::string& name) {
  return files.Find(name + kState) != nullptr;
}

absl::Status CheckNf4(const ShardedSafetensors& files, const std::string& name,
                      const std::vector<int64_t>& shape) {
  const int64_t numel = Numel(shape), blocks = numel / kNf4Block;
  if (numel % kNf4Block != 0) {
    return MakeFieldError(
        {name, absl::StrCat("a multiple of ", kNf4Block, " elements"), absl::StrCat(numel)});
  }
  LL_RETURN_IF_ERROR(CheckState(files, name, shape));
  LL_RETURN_IF_ERROR(FindTensor(files, name, Dtype::kU8, {numel / 2, 1}).status());
  LL_RETURN_IF_ERROR(FindTensor(files, name + kAbsmax, Dtype::kU8, {blocks}).status());
  LL_RETURN_IF_ERROR(
      FindTensor(files, name + kNestedAbsmax, Dtype::kF32, {CeilDiv(blocks, kNf4NestedBlock)})
          .status());
  LL_RETURN_IF_ERROR(CheckMap(files, name + kMap, Nf4QuantMap()));
  return CheckMap(files, name + kNestedMap, Nf4NestedQuantMap());
}

absl::StatusOr<Nf4Tensor> ReadNf4(const ShardedSafetensors& files, const std::string& name) {
  const auto view = [&files](const std::string& tensor) -> absl::StatusOr<at::Tensor> {
    const ShardedSafetensors::Entry* entry = files.Find(tensor);
    if (entry == nullptr) return absl::NotFoundError(absl::StrCat("no weight named ", tensor));
    LL_ASSIGN_OR_RETURN(const at::Tensor found, TensorView(entry->file, *entry->tensor));
    return found.view({-1});
  };
  Nf4Tensor q;
  LL_ASSIGN_OR_RETURN(q.codes, view(name));
  LL_ASSIGN_OR_RETURN(q.absmax, view(name + kAbsmax));
  LL_ASSIGN_OR_RETURN(q.nested_absmax, view(name + kNestedAbsmax));
  LL_ASSIGN_OR_RETURN(const json state, ReadState(files, name));
  q.offset = state["nested_offset"].get<float>();
  q.shape = state["shape"].get<std::vector<int64_t>>();
  return q;
}

std::vector<TensorInfo> Nf4TensorInfos(const std::string& name, const std::vector<int64_t>& shape) {
  const int64_t numel = Numel(shape), blocks = numel / kNf4Block;
  return {{.name = name, .dtype = Dtype::kU8, .shape = {numel / 2, 1}},
          {.name = name + kAbsmax, .dtype = Dtype::kU8, .shape = {blocks}},
          {.name = name + kNestedAbsmax,
           .dtype = Dtype::kF32,
           .shape = {CeilDiv(blocks, kNf4NestedBlock)}},
          {.name = name + kNestedMap, .dtype = Dtype::kF32, .shape = {256}},
          {.name = name + kMap, .dtype = Dtype::kF32, .shape = {16}},
          {.name = name + kState, .dtype = Dtype::kU8, .shape = {kStateBytes}}};
}

std::vector<std::pair<std::string, at::Tensor>> Nf4Tensors(const std::string& name,
                                                           const Nf4Tensor& q,
                                                           const std::string& dtype) {
  json state = {{"quant_type", "nf4"},
                {"blocksize", kNf4Block},
                {"dtype", dtype},
                {"shape", q.shape},
                {"nested_blocksize", kNf4NestedBlock},
                {"nested_dtype", "float32"},
                {"nested_offset", static_cast<double>(q.offset)}};
  std::string text = state.dump();
  text.resize(static_cast<size_t>(kStateBytes), ' ');
  at::Tensor bytes = at::empty({kStateBytes}, at::kByte);
  std::memcpy(bytes.data_ptr(), text.data(), text.size());
  return {{name, q.codes.view({-1, 1})},
          {name + kAbsmax, q.absmax},
          {name + kNestedAbsmax, q.nested_absmax},
          {name + kNestedMap, Nf4NestedQuantMap()},
          {name + kMap, Nf4QuantMap()},
          {name + kState, bytes}};
}

json Nf4QuantizationConfig(const std::string& dtype) {
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"bnb_4bit_quant_type", "nf4"},
          {"bnb_4bit_use_double_quant", true},
          {"bnb_4bit_compute_dtype", dtype},
          {"bnb_4bit_quant_storage", "uint8"},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false},
          {"llm_int8_skip_modules", nullptr},
          {"llm_int8_threshold", 6.0}};
}

}  // namespace ll
