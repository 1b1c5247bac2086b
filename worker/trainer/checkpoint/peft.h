// The adapter folder as PEFT reads it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/llama.h"
#include "model/weight_source.h"
#include "model/weights/safetensors.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/checkpoint/adapter_config.h"

namespace ll {

// PEFT's names are the model's behind this.
inline constexpr char kPeftPrefix[] = "base_model.model.";

// The fp32 masters of the trained parameters (name, tensor) under PEFT's names ("base_model.model."
// + the model's name), without copying them. With a tied head and a trained embedding PEFT wants
// the embedding a second time, as lm_head's weight.
std::vector<std::pair<std::string, at::Tensor>> PeftTensors(
    const std::vector<std::pair<std::string, at::Tensor>>& masters, bool tied_head);

// adapter_config.json: `base_model` is what the adapter was trained on, a folder or a name.
nlohmann::ordered_json PeftConfig(const LoraSpec& lora, bool train_embedding, bool train_norm,
                                  bool tied_head, const std::string& base_model);

// A base model with an adapter folder merged into it, weight by weight as they are asked for: W +
// scale * B A in fp32 for LoRA's targets, the adapter's own weight for what was trained in full.
// Not thread-safe.
class AdaptedWeights : public WeightSource {
 public:
  // `base` must outlive this. Errors: the folder lacks a file, its config is not LoRA's, a tensor
  // has no use.
  static absl::StatusOr<std::unique_ptr<AdaptedWeights>> Open(WeightSource& base,
                                                              const std::string& adapter_folder);

  // The config of the merged model, where `config` is the base's, perhaps with scaled positions:
  // its vocabulary is the adapter's where that has more rows, and its head is no longer tied where
  // the adapter trained only one of the two. Get then gives every weight of that config; rows that
  // the adapter does not have are the mean of the old ones, as LongLoRA adds tokens. Errors name
  // the tensor of an adapter that belongs to another base.
  absl::StatusOr<LlamaConfig> Fit(const LlamaConfig& config);

  absl::StatusOr<at::Tensor> Get(const std::string& hf_name) override;
  void Release(const std::string& hf_name) override;

 private:
  AdaptedWeights(WeightSource& base, std::shared_ptr<const SafetensorsFile> file,
                 AdapterConfig config)
      : base_(base), file_(std::move(file)), config_(std::move(config)) {}
  absl::Status CheckTensor(const TensorInfo& tensor, const LlamaConfig& config) const;
  // Whether the adapter makes two weights out of a tied pair.
  bool UntiesHead() const;
  absl::StatusOr<at::Tensor> BaseWeight(const std::string& hf_name);
  // The adapter's tensor of that model name; undefined where it has none.
  absl::StatusOr<at::Tensor> Find(const std::string& name) const;

  WeightSource& base_;
  std::shared_ptr<const SafetensorsFile> file_;
  const AdapterConfig config_;
  int64_t vocab_size_ = 0;  // 0: as the base has it
};

}  // namespace ll
