#include "worker/trainer/merge/merge_inputs.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/trainer/checkpoint/format.h"
#include "worker/trainer/checkpoint/load_adapter.h"
#include "worker/trainer/data/fingerprint.h"
#include "worker/trainer/setup.h"

namespace ll {
namespace {

bool IsTokenizer(const std::string& path) {
  return absl::EndsWith(path, "/tokenizer.json") || absl::EndsWith(path, "/tokenizer.model") ||
         absl::EndsWith(path, "/vocab.json");
}

// A whole model becomes the model; an adapter without --model names its base.
absl::Status ResolveFolders(const MergeRequest& request, MergeInputs& in) {
  in.checkpoint = request.adapter;
  if (FileExists(request.adapter + "/" + kTrainerStateFile)) {
    LL_ASSIGN_OR_RETURN(in.state, ReadTrainerState(request.adapter));
  }
  if (!FileExists(request.adapter + "/" + kAdapterConfigFile)) {
    if (!FileExists(request.adapter + "/config.json"))
      return NoAdapterIn("--adapter", request.adapter);
    in.model = request.adapter;
    return absl::OkStatus();
  }
  in.adapter = request.adapter;
  LL_ASSIGN_OR_RETURN(in.adapter_config, ReadAdapterConfig(request.adapter));
  in.model = request.model.empty() ? in.adapter_config->base_model : request.model;
  if (IsDirectory(in.model)) return absl::OkStatus();
  return MakeFieldError(
      {"--model", "the base's Hugging Face folder", in.model.empty() ? "nothing" : in.model,
       request.model.empty() ? "the adapter names it; give --model DIR"
                             : "there is no such folder"},
      absl::StatusCode::kNotFound);
}

// Positions, context and vocabulary come from the adapter's folder where it has a config.json, the
// sizes must be the base's.
absl::Status ReadConfigs(const MergeRequest& request, MergeInputs& in) {
  LL_ASSIGN_OR_RETURN(in.base_config, ReadModelConfig(in.model));
  in.config = in.base_config;
  if (!in.adapter.empty() && FileExists(in.adapter + "/config.json")) {
    LL_ASSIGN_OR_RETURN(in.config, ReadModelConfig(in.adapter));
    const std::vector<WeightShape> mine = WeightShapes(in.config),
                                   base = WeightShapes(in.base_config);
    for (size_t i = 0; i < std::min(mine.size(), base.size()); ++i) {
      if (mine[i].name == base[i].name && mine[i].shape == base[i].shape) continue;
      return MakeFieldError(
          {absl::StrCat(in.adapter, "/config.json: ", mine[i].name),
           absl::StrCat("the base's ", base[i].name, " [", absl::StrJoin(base[i].shape, ", "), "]"),
           absl::StrCat("[", absl::StrJoin(mine[i].shape, ", "), "]"),
           absl::StrCat("the adapter belongs to another base; it names ",
                        in.adapter_config->base_model)},
          absl::StatusCode::kFailedPrecondition);
    }
  }
  if (request.context_length > 0) {
    LL_ASSIGN_OR_RETURN(in.config, ExtendContext(in.config, request.context_length,
                                                 RopeTypeFromName(request.rope)));
  }
  in.config.dtype = request.dtype == "bf16"   ? "bfloat16"
                    : request.dtype == "fp16" ? "float16"
                    : request.dtype == "fp32" ? "float32"
                                              : in.base_config.dtype;
  in.config.quantized = false;
  in.config.raw.erase("quantization_config");
  return absl::OkStatus();
}

absl::Status ChooseBase(const MergeRequest& request, MergeInputs& in) {
  const bool folder_is_nf4 = in.base_config.quantized;
  in.trained_on_nf4 = folder_is_nf4 || (in.state && in.state->spec.Base() == BaseFormat::kNf4);
  in.onto = request.onto.empty() ? (folder_is_nf4 ? "nf4" : "16bit") : request.onto;
  if (in.onto == "16bit" && folder_is_nf4) {
    return MakeFieldError({"--onto", "nf4, because the base folder is in NF4", "16bit",
                           "give the original weights with --model DIR"});
  }
  if (in.onto == "nf4" && in.state && !in.trained_on_nf4) {
    return MakeFieldError({"--onto", "16bit, because the adapter was trained on 16-bit weights",
                           "nf4", "--quantization nf4 writes the merged model in NF4"});
  }
  return absl::OkStatus();
}

// Shapes alone do not tell two models of one family apart.
absl::Status CheckIdentity(const MergeRequest& request, const MergeInputs& in) {
  if (request.allow_other_base || in.adapter.empty() || !in.state) return absl::OkStatus();
  const std::string& trained = in.state->base_fingerprint;
  if (trained.empty() || absl::StartsWith(trained, "nf4:") != in.base_config.quantized)
    return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(const std::string found,
                      ModelFingerprint(in.model, in.base_config.quantized));
  if (found == trained) return absl::OkStatus();
  return MakeFieldError(
      {"--model",
       absl::StrCat("the weights the adapter was trained on (", in.adapter_config->base_model,
                    ", fingerprint ", trained.substr(0, 12), "…)"),
       absl::StrCat(in.model, ", fingerprint ", found.substr(0, 12), "…"),
       "give that folder; --allow-other-base merges all the same, for example where the files were "
       "saved anew"},
      absl::StatusCode::kFailedPrecondition);
}

// The adapter's own tokenizer goes before the base's: it may have more tokens.
absl::Status FindTokenizer(const MergeRequest& request, MergeInputs& in) {
  std::vector<std::string> folders = {in.checkpoint};
  if (in.state && in.state->spec.tokenizer && IsDirectory(*in.state->spec.tokenizer))
    folders.push_back(*in.state->spec.tokenizer);
  folders.push_back(in.model);
  for (const std::string& folder : folders) {
    in.tokenizer_files = TokenizerFiles(folder);
    if (std::any_of(in.tokenizer_files.begin(), in.tokenizer_files.end(), IsTokenizer))
      return absl::OkStatus();
  }
  if (request.allow_missing_tokenizer) return absl::OkStatus();
  return MakeFieldError(
      {"--model", "a tokenizer (tokenizer.json or tokenizer.model)",
       absl::StrCat("none in ", in.model),
       "copy the tokenizer's files into that folder, or --allow-missing-tokenizer"},
      absl::StatusCode::kNotFound);
}

}  // namespace

at::ScalarType MergeInputs::TrainedIn() const {
  return state && state->spec.precision == "fp32" ? at::kFloat : at::kBFloat16;
}

absl::StatusOr<MergeInputs::Weights> MergeInputs::WeightsOnto(const std::string& onto_base) const {
  Weights weights;
  weights.exact = base.get();
  if (onto_base == "nf4") {
    weights.quantized = std::make_unique<Nf4Values>(*weights.exact, TrainedIn());
    weights.exact = weights.quantized.get();
  }
  if (adapter.empty()) return weights;
  LL_ASSIGN_OR_RETURN(weights.adapted, AdaptedWeights::Open(*weights.exact, adapter));
  LL_RETURN_IF_ERROR(weights.adapted->Fit(base_config).status());
  weights.exact = weights.adapted.get();
  return weights;
}

absl::StatusOr<MergeInputs> OpenMergeInputs(const MergeRequest& request) {
  MergeInputs in;
  LL_RETURN_IF_ERROR(ResolveFolders(request, in));
  LL_RETURN_IF_ERROR(ReadConfigs(request, in));
  LL_RETURN_IF_ERROR(ChooseBase(request, in));
  LL_ASSIGN_OR_RETURN(in.base, HfFolder::Open(in.model, in.base_config));
  if (!in.adapter.empty()) {
    LL_ASSIGN_OR_RETURN(const auto adapted, AdaptedWeights::Open(*in.base, in.adapter));
    LL_ASSIGN_OR_RETURN(const LlamaConfig fitted, adapted->Fit(in.base_config));
    in.config.vocab_size = fitted.vocab_size;
    in.config.tie_word_embeddings = fitted.tie_word_embeddings;
    LL_RETURN_IF_ERROR(CheckIdentity(request, in));
  }
  LL_RETURN_IF_ERROR(FindTokenizer(request, in));
  return in;
}

}  // namespace ll
