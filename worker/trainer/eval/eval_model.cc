#include "worker/trainer/eval/eval_model.h"

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
#include "worker/trainer/setup.h"

namespace ll {
namespace {

// Follows `adapter` to what it is: a whole model (checkpoint of method full) becomes the model; an
// adapter without a model given names its base.
absl::Status ResolveFolders(EvalRequest& request) {
  if (request.adapter.empty()) return absl::OkStatus();
  const std::string config_path = request.adapter + "/" + kAdapterConfigFile;
  if (!IsDirectory(request.adapter)) {
    return MakeFieldError(
        {"adapter", "an adapter folder", request.adapter, "there is no such folder"},
        absl::StatusCode::kNotFound);
  }
  if (!FileExists(config_path)) {
    if (!FileExists(request.adapter + "/config.json")) {
      return MakeFieldError(
          {"adapter", absl::StrCat("a folder with ", kAdapterConfigFile), request.adapter});
    }
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

absl::StatusOr<LlamaConfig> ConfigFor(const EvalRequest& request) {
  const bool scaled = !request.adapter.empty() && FileExists(request.adapter + "/config.json");
  LL_ASSIGN_OR_RETURN(const LlamaConfig config,
                      ReadModelConfig(scaled ? request.adapter : request.model));
  const int64_t context =
      request.context_size > 0 ? request.context_size : request.perplexity.seq_len;
  return ExtendContext(config, context, RopeTypeFromName(request.rope),
                       request.original_context_length);
}

// Whether the base is kept in NF4: an adapter trained on such a base belongs to its values.
absl::StatusOr<bool> QuantizesBase(const EvalRequest& request, const LlamaConfig& base) {
  if (!request.quantization.empty()) return request.quantization == "nf4";
  if (base.quantized) return true;
  if (request.adapter.empty() || !FileExists(request.adapter + "/" + kTrainerStateFile))
    return false;
  LL_ASSIGN_OR_RETURN(const TrainerState state, ReadTrainerState(request.adapter));
  return state.spec.QuantizesBase();
}

// The model to measure. LoRA is merged into 16-bit weights, which costs nothing for each token;
// beside NF4 it stays apart, as in training.
absl::StatusOr<std::unique_ptr<Llama>> LoadModel(const EvalRequest& request,
                                                 const LlamaConfig& config) {
  LL_ASSIGN_OR_RETURN(const LlamaConfig base_config, ReadModelConfig(request.model));
  LL_ASSIGN_OR_RETURN(const auto base, HfFolder::Open(request.model, base_config));
  ModelOptions options;
  options.trainable = false;
  options.dtype = request.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  LL_ASSIGN_OR_RETURN(options.quantize_base, QuantizesBase(request, base_config));
  if (request.adapter.empty()) return Llama::Create(config, *base, options);
  if (!options.quantize_base) {
    LL_ASSIGN_OR_RETURN(const auto adapted, AdaptedWeights::Open(*base, request.adapter));
    return Llama::Create(config, *adapted, options);
  }
  LL_ASSIGN_OR_RETURN(const AdapterConfig adapter, ReadAdapterConfig(request.adapter));
  options.lora = LoraSpecOf(adapter);
  options.train_embedding = adapter.trains_embedding;
  options.train_norm = adapter.trains_norm;
  LL_ASSIGN_OR_RETURN(auto model, Llama::Create(config, *base, options));
  LL_RETURN_IF_ERROR(LoadAdapter(request.adapter, *model));
  return model;
}

}  // namespace

absl::StatusOr<EvalRequest> EvalRequestOf(const JobSpec& spec) {
  EvalRequest request;
  request.model = spec.model.value_or("");
  request.adapter = spec.adapter.value_or("");
  if (request.model.empty() && request.adapter.empty()) {
    return MakeFieldError({"model", "a model folder or an adapter folder", "nothing"});
  }
  if (!spec.eval_data)
    return MakeFieldError({"eval_data", "a token file", "nothing", "give data: FILE"});
  request.data = *spec.eval_data;
  request.context_size = spec.eval_context_size.value_or(0);
  request.rope = spec.rope.value_or("linear");
  request.original_context_length = spec.original_context_length.value_or(0);
  request.precision = spec.precision.value_or("auto");
  request.quantization = spec.quantization.value_or("");
  request.perplexity.seq_len = *spec.eval_seq_len;
  request.perplexity.sliding_window = *spec.eval_sliding_window;
  request.perplexity.mode = *spec.eval_mode == "exact" ? WindowMode::kExact : WindowMode::kOfficial;
  return request;
}

absl::StatusOr<PerplexityResult> EvaluatePerplexity(const EvalRequest& given, Comm& comm,
                                                    EventSink& events) {
  EvalRequest request = given;
  events.Phase("load");
  LL_RETURN_IF_ERROR(ResolveFolders(request));
  LL_ASSIGN_OR_RETURN(const LlamaConfig config, ConfigFor(request));
  LL_ASSIGN_OR_RETURN(const auto data, OpenTokenFile(request.data, "data", config.vocab_size));
  // Before the model is loaded: a file too short is an error in a millisecond.
  LL_RETURN_IF_ERROR(WindowStarts(data->size(), request.perplexity.seq_len,
                                  request.perplexity.sliding_window, request.perplexity.mode)
                         .status());
  LL_ASSIGN_OR_RETURN(const auto model, LoadModel(request, config));
  events.Phase("eval");
  return Perplexity(*model, *data, request.perplexity, comm);
}

}  // namespace ll
