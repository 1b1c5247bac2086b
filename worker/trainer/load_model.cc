#include "worker/trainer/load_model.h"

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/weights/hf_folder.h"
#include "worker/trainer/checkpoint/adapter_config.h"
#include "worker/trainer/checkpoint/format.h"
#include "worker/trainer/checkpoint/load_adapter.h"
#include "worker/trainer/checkpoint/peft.h"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/device.h"
#include "worker/trainer/setup.h"

namespace ll {
namespace {

// Follows `adapter` to what it is: a whole model (checkpoint of method full) becomes the model; an
// adapter without a model given names its base.
absl::Status FollowAdapter(ModelRequest& request) {
  if (request.adapter.empty()) return absl::OkStatus();
  const std::string config_path = request.adapter + "/" + kAdapterConfigFile;
  if (!FileExists(config_path)) {
    if (!FileExists(request.adapter + "/config.json"))
      return NoAdapterIn("adapter", request.adapter);
    request.model = request.adapter;
    request.adapter.clear();
    return absl::OkStatus();
  }
  if (!request.model.empty()) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(config_path));
  const auto config = ParseAdapterConfig(text);
  if (!config.ok()) return Annotate(config.status(), config_path);
  request.model = config->base_model;
  return absl::OkStatus();
}

absl::StatusOr<LlamaConfig> ConfigFor(const ModelRequest& request) {
  const bool scaled = !request.adapter.empty() && FileExists(request.adapter + "/config.json");
  LL_ASSIGN_OR_RETURN(LlamaConfig config,
                      ReadModelConfig(scaled ? request.adapter : request.model));
  if (request.context_size <= 0) return config;
  return ExtendContext(config, request.context_size, RopeTypeFromName(request.rope),
                       request.original_context_length);
}

// How the base is kept: an adapter trained on NF4 belongs to its values. One trained on fp8 is read
// beside the weights themselves, to which fp8 is a means of speed.
absl::StatusOr<BaseFormat> BaseOf(const ModelRequest& request, const LlamaConfig& base) {
  const auto format = [](bool nf4) { return nf4 ? BaseFormat::kNf4 : BaseFormat::kCompute; };
  if (!request.quantization.empty()) return format(request.quantization == "nf4");
  if (base.quantized) return BaseFormat::kNf4;
  if (request.adapter.empty() || !FileExists(request.adapter + "/" + kTrainerStateFile))
    return BaseFormat::kCompute;
  LL_ASSIGN_OR_RETURN(const TrainerState state, ReadTrainerState(request.adapter));
  return format(state.spec.Base() == BaseFormat::kNf4);
}

}  // namespace

absl::StatusOr<ModelFolders> ResolveModel(const ModelRequest& given) {
  ModelRequest request = given;
  LL_RETURN_IF_ERROR(FollowAdapter(request));
  if (request.model.empty())
    return MakeFieldError({"model", "a model folder or an adapter folder", "nothing"});
  ModelFolders folders{request.model, request.adapter, {}, {}};
  LL_ASSIGN_OR_RETURN(folders.config, ConfigFor(request));
  LL_ASSIGN_OR_RETURN(const LlamaConfig base, ReadModelConfig(request.model));
  folders.options.device = ProcessDevice();
  folders.options.trainable = false;
  folders.options.dtype = request.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  LL_ASSIGN_OR_RETURN(folders.options.base, BaseOf(request, base));
  return folders;
}

absl::StatusOr<std::unique_ptr<Llama>> LoadModel(const ModelFolders& folders) {
  ModelOptions options = folders.options;
  LL_ASSIGN_OR_RETURN(const LlamaConfig base_config, ReadModelConfig(folders.model));
  LL_ASSIGN_OR_RETURN(const auto base, HfFolder::Open(folders.model, base_config));
  if (folders.adapter.empty()) return Llama::Create(folders.config, *base, options);
  if (options.base == BaseFormat::kCompute) {
    LL_ASSIGN_OR_RETURN(const auto adapted, AdaptedWeights::Open(*base, folders.adapter));
    // Names the tensor of an adapter of another base; unties a head that PEFT trained apart.
    LL_ASSIGN_OR_RETURN(const LlamaConfig config, adapted->Fit(folders.config));
    return Llama::Create(config, *adapted, options);
  }
  LL_ASSIGN_OR_RETURN(const AdapterConfig adapter, ReadAdapterConfig(folders.adapter));
  options.lora = LoraSpecOf(adapter);
  options.train_embedding = adapter.trains_embedding;
  options.train_norm = adapter.trains_norm;
  LL_ASSIGN_OR_RETURN(auto model, Llama::Create(folders.config, *base, options));
  LL_RETURN_IF_ERROR(LoadAdapter(folders.adapter, *model));
  return model;
}

}  // namespace ll
