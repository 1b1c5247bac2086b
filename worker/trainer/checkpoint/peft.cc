#include "worker/trainer/checkpoint/peft.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"
#include "model/weights/tensor_io.h"
#include "worker/trainer/checkpoint/adapter_config.h"
#include "worker/trainer/checkpoint/format.h"

namespace ll {
namespace {

constexpr absl::string_view kEmbedding = "model.embed_tokens.weight";
constexpr absl::string_view kHead = "lm_head.weight";
constexpr absl::string_view kWeight = ".weight";

}  // namespace

std::vector<std::pair<std::string, at::Tensor>> PeftTensors(
    const std::vector<Parameter>& parameters, bool tied_head) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const Parameter& parameter : parameters) {
    tensors.emplace_back(absl::StrCat(kPeftPrefix, parameter.name), parameter.master);
    if (tied_head && parameter.name == kEmbedding) {
      tensors.emplace_back(absl::StrCat(kPeftPrefix, kHead), parameter.master);
    }
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
  return std::unique_ptr<AdaptedWeights>(
      new AdaptedWeights(base, std::move(file), config->scale()));
}

absl::StatusOr<at::Tensor> AdaptedWeights::Find(const std::string& name) const {
  const TensorInfo* info = file_->Find(absl::StrCat(kPeftPrefix, name));
  if (info == nullptr) return at::Tensor();
  return TensorView(file_, *info);
}

absl::StatusOr<at::Tensor> AdaptedWeights::Get(const std::string& hf_name) {
  LL_ASSIGN_OR_RETURN(at::Tensor whole, Find(hf_name));
  if (whole.defined()) return whole;
  LL_ASSIGN_OR_RETURN(const at::Tensor weight, base_.Get(hf_name));
  const std::string module(absl::StripSuffix(hf_name, kWeight));
  LL_ASSIGN_OR_RETURN(const at::Tensor a, Find(module + ".lora_A.weight"));
  if (!a.defined()) return weight;
  LL_ASSIGN_OR_RETURN(const at::Tensor b, Find(module + ".lora_B.weight"));
  if (!b.defined() || a.dim() != 2 || b.dim() != 2 || a.size(0) != b.size(1) ||
      b.size(0) != weight.size(0) || a.size(1) != weight.size(1)) {
    return MakeFieldError(
        {file_->path(), absl::StrCat("lora_A and lora_B that fit ", hf_name), "other shapes"});
  }
  at::Tensor merged;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    merged = weight.to(at::kFloat).addmm(b.to(at::kFloat), a.to(at::kFloat), 1.0, scale_);
    return absl::OkStatus();
  }));
  return merged;
}

}  // namespace ll
