// A model from its configuration and weights: what the options may be, and who owns which tensor.
#include <algorithm>

#include <c10/core/GradMode.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "kernels/common/cuda_kernels.h"
#include "model/llama_state.h"
#include "model/torch_edge.h"

namespace ll {

absl::Status CheckOptions(const LlamaConfig& config, const ModelOptions& options) {
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16) {
    return MakeFieldError({.field = "dtype",
                           .expected = "float32 or bfloat16",
                           .found = c10::toString(options.dtype)});
  }
  if (options.device.is_cuda() && CudaKernelsInUse() == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("device ", options.device.str(), ": libll_cuda.so has not been opened"));
  }
  if (options.base == BaseFormat::kFp8 && options.dtype != at::kBFloat16) {
    return MakeFieldError({.field = "base",
                           .expected = "fp8 beside a compute type of bfloat16",
                           .found = c10::toString(options.dtype)});
  }
  if (options.train_all && options.base != BaseFormat::kCompute) {
    return MakeFieldError({.field = "base",
                           .expected = "the compute type where every weight is trained",
                           .found = "a quantised base"});
  }
  if (options.train_all && options.lora.rank > 0) {
    return MakeFieldError({.field = "lora.rank",
                           .expected = "0 where every weight is trained",
                           .found = absl::StrCat(options.lora.rank)});
  }
  if (options.offload_activations && options.recompute != Recompute::kFull) {
    return MakeFieldError({.field = "offload_activations",
                           .expected = "recompute full, which keeps nothing but layers' inputs",
                           .found = "another recompute"});
  }
  if (options.lora.rank < 0 || options.lora.dropout < 0 || options.lora.dropout >= 1) {
    return MakeFieldError(
        {.field = "lora",
         .expected = "rank >= 0 and 0 <= dropout < 1",
         .found = absl::StrCat("rank ", options.lora.rank, ", dropout ", options.lora.dropout)});
  }
  static const char* const kTargets[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                         "gate_proj", "up_proj", "down_proj"};
  for (const std::string& target : options.lora.target_modules) {
    if (std::find(std::begin(kTargets), std::end(kTargets), target) == std::end(kTargets)) {
      return MakeFieldError(
          {.field = "lora.target_modules",
           .expected = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj",
           .found = target});
    }
  }
  if (config.head_dim % 2 != 0 || config.num_key_value_heads < 1 ||
      config.num_attention_heads % config.num_key_value_heads != 0) {
    return MakeFieldError(
        {.field = "num_key_value_heads",
         .expected = "a divisor of num_attention_heads, and an even head_dim",
         .found = absl::StrCat(config.num_key_value_heads, " of ", config.num_attention_heads,
                               ", head_dim ", config.head_dim)});
  }
  return absl::OkStatus();
}

absl::Status Llama::State::LoadTable(const std::string& name, bool trained, WeightSource& source,
                                     at::Tensor& table, at::Tensor& master, at::Tensor& grad) {
  LL_ASSIGN_OR_RETURN(at::Tensor w, source.Get(name));
  if (w.sizes() != at::IntArrayRef({config.vocab_size, config.hidden_size})) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, ": expected shape [", config.vocab_size, ", ", config.hidden_size,
                     "], found ", w.dim(), " dimensions and ", w.numel(), " elements"));
  }
  table = w.to(options.compute(), /*non_blocking=*/false, /*copy=*/true).contiguous();
  if (!trained) return absl::OkStatus();
  master = options.dtype == at::kFloat ? table : table.to(at::kFloat);
  if (options.trainable) grad = at::zeros_like(master);
  return absl::OkStatus();
}

absl::Status Llama::State::Load(WeightSource& source) {
  const bool train_embedding = options.train_embedding || options.train_all;
  LL_RETURN_IF_ERROR(LoadTable("model.embed_tokens.weight", train_embedding, source, embedding,
                               embedding_master, embedding_grad));
  if (config.tie_word_embeddings) {
    head_weight = embedding;
    head_grad = embedding_grad;
  } else {
    LL_RETURN_IF_ERROR(LoadTable("lm_head.weight", options.train_all, source, head_weight,
                                 head_master, head_grad));
  }
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    LL_ASSIGN_OR_RETURN(LlamaLayer layer, LlamaLayer::Create(config, l, options, source));
    if (base) {
      std::vector<at::Tensor> frozen;
      layer.AppendFrozen(frozen);
      base->AddLayer(frozen);
    }
    layers.push_back(std::move(layer));
  }
  LL_ASSIGN_OR_RETURN(NormWeight norm,
                      NormWeight::Create("model.norm.weight", config.hidden_size, options, source));
  head.emplace(std::move(norm), config.rms_norm_eps, head_weight, head_grad, options.trainable,
               options.loss_chunk_tokens);
  buffers.emplace(config, options);
  CollectParameters();
  return absl::OkStatus();
}

void Llama::State::CollectParameters() {
  if (embedding_master.defined()) {
    parameters.push_back(
        {"model.embed_tokens.weight", embedding, embedding_master, embedding_grad, false, true});
  }
  for (const LlamaLayer& layer : layers) {
    first_parameter.push_back(parameters.size());
    layer.AppendParameters(parameters);
  }
  first_parameter.push_back(parameters.size());
  head->norm().AppendParameters(parameters);
  if (head_master.defined())
    parameters.push_back({"lm_head.weight", head_weight, head_master, head_grad, false, false});
}

Llama::Llama(std::unique_ptr<State> state) : state_(std::move(state)) {}
Llama::~Llama() = default;

absl::StatusOr<std::unique_ptr<Llama>> Llama::Create(const LlamaConfig& config,
                                                     WeightSource& source,
                                                     const ModelOptions& options, RowPeers* base) {
  LL_RETURN_IF_ERROR(CheckOptions(config, options));
  auto state = std::make_unique<State>();
  state->config = config;
  state->options = options;
  if (options.offload_activations) state->offload.emplace(MakeHostCopier(options.device));
  if (base != nullptr && base->world_size() > 1) state->base.emplace(*base);
  LL_RETURN_IF_ERROR(TorchTry([&] {
    c10::NoGradGuard no_grad;
    return state->Load(source);
  }));
  return std::unique_ptr<Llama>(new Llama(std::move(state)));
}

}  // namespace ll
