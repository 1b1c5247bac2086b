#include "worker/trainer/checkpoint/peft.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"
#include "model/weights/tensor_io.h"
#include "worker/trainer/checkpoint/format.h"

namespace ll {
namespace {

constexpr absl::string_view kEmbedding = "model.embed_tokens.weight";
constexpr absl::string_view kLmHead = "lm_head.weight";
constexpr absl::string_view kWeight = ".weight";
constexpr absl::string_view kLoraA = ".lora_A.weight";
constexpr absl::string_view kLoraB = ".lora_B.weight";
// PEFT saves the weight below a LoRA on the head or the embedding too: it may have more rows.
constexpr absl::string_view kBaseLayer = ".base_layer.weight";

// The model's name of a weight that an adapter holds in full.
std::string WeightName(absl::string_view tensor) {
  absl::ConsumePrefix(&tensor, kPeftPrefix);
  if (absl::ConsumeSuffix(&tensor, kBaseLayer)) return absl::StrCat(tensor, kWeight);
  return std::string(tensor);
}

}  // namespace

std::vector<std::pair<std::string, at::Tensor>> PeftTensors(
    const std::vector<std::pair<std::string, at::Tensor>>& masters, bool tied_head) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [name, master] : masters) {
    tensors.emplace_back(absl::StrCat(kPeftPrefix, name), master);
    if (tied_head && name == kEmbedding)
      tensors.emplace_back(absl::StrCat(kPeftPrefix, kLmHead), master);
  }
  return tensors;
}

nlohmann::ordered_json PeftConfig(const LoraSpec& lora, bool train_embedding, bool train_norm,
                                  bool tied_head, const std::string& base_model) {
  nlohmann::ordered_json modules_to_save = nlohmann::ordered_json::array();
  if (train_embedding) modules_to_save.push_back("embed_tokens");
  if (train_norm) {
    for (const char* norm : {"input_layernorm", "post_attention_layernorm", "norm"})
      modules_to_save.push_back(norm);
  }
  nlohmann::ordered_json config = {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path", base_model},
      {"r", lora.rank},
      {"lora_alpha", lora.alpha},
      {"lora_dropout", lora.dropout},
      {"target_modules", lora.target_modules},
      {"modules_to_save", modules_to_save.empty() ? nlohmann::ordered_json() : modules_to_save},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"use_rslora", lora.use_rslora}};
  if (tied_head && train_embedding) config["ensure_weight_tying"] = true;
  return config;
}

absl::StatusOr<std::unique_ptr<AdaptedWeights>> AdaptedWeights::Open(
    WeightSource& base, const std::string& adapter_folder) {
  const std::string config_path = adapter_folder + "/" + kAdapterConfigFile;
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(config_path));
  const auto config = ParseAdapterConfig(text);
  if (!config.ok()) return Annotate(config.status(), config_path);
  LL_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(adapter_folder + "/" + kAdapterFile));
  for (const TensorInfo& tensor : file->tensors()) {
    if (!absl::StartsWith(tensor.name, kPeftPrefix) || !absl::EndsWith(tensor.name, kWeight)) {
      return MakeFieldError(
          {file->path(), "LoRA matrices and weights trained in full", tensor.name});
    }
  }
  return std::unique_ptr<AdaptedWeights>(new AdaptedWeights(base, std::move(file), *config));
}

absl::StatusOr<at::Tensor> AdaptedWeights::Find(const std::string& name) const {
  const TensorInfo* info = file_->Find(absl::StrCat(kPeftPrefix, name));
  if (info == nullptr) return at::Tensor();
  return TensorView(file_, *info);
}

absl::StatusOr<at::Tensor> AdaptedWeights::Get(const std::string& hf_name) {
  LL_ASSIGN_OR_RETURN(at::Tensor whole, Find(hf_name));
  if (whole.defined()) return whole;
  LL_ASSIGN_OR_RETURN(const at::Tensor weight, BaseWeight(hf_name));
  const absl::string_view module = absl::StripSuffix(hf_name, kWeight);
  LL_ASSIGN_OR_RETURN(const at::Tensor a, Find(absl::StrCat(module, kLoraA)));
  if (!a.defined()) return weight;
  LL_ASSIGN_OR_RETURN(const at::Tensor b, Find(absl::StrCat(module, kLoraB)));
  if (!b.defined() || a.dim() != 2 || b.dim() != 2 || a.size(0) != b.size(1) ||
      b.size(0) != weight.size(0) || a.size(1) != weight.size(1)) {
    return MakeFieldError(
        {file_->path(), absl::StrCat("lora_A and lora_B that fit ", hf_name), "other shapes"});
  }
  at::Tensor merged;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    merged = weight.to(at::kFloat).addmm(b.to(at::kFloat), a.to(at::kFloat), 1.0, config_.scale());
    return absl::OkStatus();
  }));
  return merged;
}

void AdaptedWeights::Release(const std::string& hf_name) {
  base_.Release(hf_name);
  if (hf_name == kLmHead) base_.Release(std::string(kEmbedding));  // where it stands for a tied one
  const absl::string_view module = absl::StripSuffix(hf_name, kWeight);
  for (const std::string& name : {hf_name, absl::StrCat(module, kLoraA),
                                  absl::StrCat(module, kLoraB), absl::StrCat(module, kBaseLayer)}) {
    const TensorInfo* info = file_->Find(absl::StrCat(kPeftPrefix, name));
    if (info != nullptr) file_->Release(*info);
  }
}

// A tied head is not in the folder; rows beyond the base's vocabulary are its mean.
absl::StatusOr<at::Tensor> AdaptedWeights::BaseWeight(const std::string& hf_name) {
  LL_ASSIGN_OR_RETURN(const at::Tensor saved,
                      Find(absl::StrCat(absl::StripSuffix(hf_name, kWeight), kBaseLayer)));
  absl::StatusOr<at::Tensor> weight = saved.defined() ? saved : base_.Get(hf_name);
  if (hf_name == kLmHead && absl::IsNotFound(weight.status()))
    weight = base_.Get(std::string(kEmbedding));
  if (!weight.ok() || (hf_name != kLmHead && hf_name != kEmbedding)) return weight;
  const int64_t missing = vocab_size_ - weight->size(0);
  if (missing <= 0) return weight;
  at::Tensor longer;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    const at::Tensor mean = weight->to(at::kFloat).mean(0, /*keepdim=*/true);
    longer = at::cat({*weight, mean.to(weight->scalar_type()).expand({missing, -1})});
    return absl::OkStatus();
  }));
  return longer;
}

absl::Status AdaptedWeights::CheckTensor(const TensorInfo& tensor,
                                         const LlamaConfig& config) const {
  absl::string_view name = tensor.name;
  absl::ConsumePrefix(&name, kPeftPrefix);
  const bool a = absl::ConsumeSuffix(&name, kLoraA), b = !a && absl::ConsumeSuffix(&name, kLoraB);
  const std::string weight = a || b ? absl::StrCat(name, kWeight) : WeightName(name);
  const bool is_head = weight == kLmHead, per_token = is_head || weight == kEmbedding;
  const auto misfit = [&](absl::string_view expected) {
    return MakeFieldError(
        {absl::StrCat(file_->path(), ": ", tensor.name), expected,
         absl::StrCat("[", absl::StrJoin(tensor.shape, ", "), "]"),
         config_.base_model.empty()
             ? "the adapter belongs to another base"
             : absl::StrCat("the adapter belongs to another base; it names ", config_.base_model)},
        absl::StatusCode::kFailedPrecondition);
  };
  for (const WeightShape& shape : WeightShapes(config)) {
    // A tied head has the embedding's shape.
    const bool same = shape.name == weight || (is_head && shape.name == kEmbedding);
    if (!same) continue;
    std::vector<int64_t> want = shape.shape;
    if ((a || b) && want.size() == 2)
      want = a ? std::vector<int64_t>{config_.rank, want[1]}
               : std::vector<int64_t>{want[0], config_.rank};
    const bool more_rows = per_token && !a && !b && tensor.shape.size() == 2 &&
                           tensor.shape[0] >= want[0] && tensor.shape[1] == want[1];
    if (tensor.shape == want || more_rows) return absl::OkStatus();
    return misfit(absl::StrCat("shape [", absl::StrJoin(want, ", "), "] as the base has it"));
  }
  return misfit("a weight of the base");
}

bool AdaptedWeights::UntiesHead() const {
  if (file_->Find(absl::StrCat(kPeftPrefix, "lm_head", kLoraA)) != nullptr) return true;
  const TensorInfo* embedding = file_->Find(absl::StrCat(kPeftPrefix, kEmbedding));
  const TensorInfo* head = file_->Find(absl::StrCat(kPeftPrefix, kLmHead));
  if (embedding == nullptr || head == nullptr) return embedding != head;
  if (embedding->dtype != head->dtype || embedding->size_bytes != head->size_bytes) return true;
  // Piece by piece, so that the two largest tensors are not in memory at once.
  constexpr int64_t kPiece = 16 << 20;
  bool equal = true;
  for (int64_t at = 0; equal && at < head->size_bytes; at += kPiece) {
    const auto bytes = static_cast<size_t>(std::min(kPiece, head->size_bytes - at));
    equal = std::memcmp(file_->Data(*embedding) + at, file_->Data(*head) + at, bytes) == 0;
    file_->Release(*embedding);
    file_->Release(*head);
  }
  return !equal;
}

absl::StatusOr<LlamaConfig> AdaptedWeights::Fit(const LlamaConfig& config) {
  LlamaConfig fitted = config;
  for (const TensorInfo& tensor : file_->tensors()) {
    LL_RETURN_IF_ERROR(CheckTensor(tensor, config));
    const std::string name = WeightName(tensor.name);
    if (name == kLmHead || name == kEmbedding)
      fitted.vocab_size = std::max(fitted.vocab_size, tensor.shape[0]);
  }
  vocab_size_ = fitted.vocab_size;
  if (config.tie_word_embeddings) fitted.tie_word_embeddings = !UntiesHead();
  return fitted;
}

}  // namespace ll
