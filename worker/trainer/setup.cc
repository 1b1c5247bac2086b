#include "worker/trainer/setup.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/plan/memory_plan.h"
#include "model/shard_attention.h"
#include "model/weights/hf_folder.h"
#include "model/weights/sharded.h"
#include "worker/trainer/checkpoint/load_adapter.h"
#include "worker/trainer/data/fingerprint.h"
#include "worker/trainer/data/loader.h"
#include "worker/trainer/data/sft_loader.h"
#include "worker/trainer/device.h"
#include "worker/trainer/eval/eval_model.h"
#include "worker/trainer/memory_policy.h"

namespace ll {
namespace {

absl::Status NotSupported(absl::string_view field, absl::string_view found,
                          absl::string_view hint) {
  return FieldStatus(absl::StatusCode::kUnimplemented, field,
                     absl::StrCat(found, " is not available in this version"), hint);
}

absl::Status CheckSupported(const JobSpec& spec) {
  if (!spec.stages.empty())
    return NotSupported("stages", "training in stages by one process",
                        "llctl submit makes a job of each stage");
  if (*spec.activation_offload && ProcessDevice().is_cpu()) {
    return MakeFieldError({"activation_offload", "false on a CPU, whose memory is the host's",
                           "true", "leave it out"});
  }
  if (!spec.data)
    return MakeFieldError({"data", "a token file or text", "nothing", "give data: FILE"});
  return absl::OkStatus();
}

absl::StatusOr<LlamaConfig> ReadInlineConfig(const std::string& text_or_path) {
  std::string text = text_or_path;
  if (!absl::StartsWith(absl::StripLeadingAsciiWhitespace(text), "{")) {
    LL_ASSIGN_OR_RETURN(text, ReadFile(text_or_path));
  }
  auto config = ParseLlamaConfig(text);
  return config.ok() ? config : Annotate(config.status(), "model_config");
}

// As transformers 5 does where config.json names no dtype: that of the weights. Weights that are
// absent or of another type are named by who reads them.
void TakeDtypeOfWeights(const std::string& folder, LlamaConfig& config) {
  const auto named = [&](const char* key) {
    return config.raw.contains(key) && !config.raw[key].is_null();
  };
  if (named("dtype") || named("torch_dtype")) return;
  const auto weights = ShardedSafetensors::Open(folder);
  const auto* embedding = weights.ok() ? weights->Find("model.embed_tokens.weight") : nullptr;
  if (embedding == nullptr) return;
  if (embedding->tensor->dtype == Dtype::kBF16) config.dtype = "bfloat16";
  if (embedding->tensor->dtype == Dtype::kF16) config.dtype = "float16";
}

AttentionSpec AttentionOf(const JobSpec& spec) {
  AttentionSpec attention;
  attention.kind = *spec.attention == "s2"      ? AttentionKind::kS2
                   : *spec.attention == "short" ? AttentionKind::kShort
                                                : AttentionKind::kFull;
  attention.wrap = *spec.wrap == "roll" ? WrapKind::kRoll : WrapKind::kSplit;
  attention.group_tokens = static_cast<int64_t>(
      std::floor(*spec.group_ratio * static_cast<double>(*spec.context_length)));
  return attention;
}

ModelOptions OptionsOf(const JobSpec& spec) {
  ModelOptions options;
  options.device = ProcessDevice();
  options.dtype = *spec.precision == "fp32" ? at::kFloat : at::kBFloat16;
  options.seed = static_cast<uint64_t>(*spec.seed);
  options.train_all = *spec.method == "full";
  options.offload_activations = *spec.activation_offload;
  if (!options.train_all) {
    options.base = spec.Base();
    options.train_embedding = spec.TrainsEmbedding();
    options.train_norm = spec.TrainsNorm();
    options.lora.rank = static_cast<int>(*spec.lora_rank);
    options.lora.alpha = *spec.lora_alpha;
    options.lora.dropout = *spec.lora_dropout;
    options.lora.target_modules = spec.target_modules;
    options.lora.use_rslora = *spec.use_rslora;
  }
  return options;
}

// The adapter's own keys, and the scaling it was trained with, which the job keeps and extends.
absl::Status StartFromAdapter(JobSpec& wanted, LlamaConfig& base) {
  LL_ASSIGN_OR_RETURN(const AdapterConfig adapter, ReadAdapterConfig(*wanted.adapter));
  LL_ASSIGN_OR_RETURN(wanted, SpecFromAdapter(wanted, adapter));
  if (!FileExists(*wanted.adapter + "/config.json")) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(LlamaConfig scaled, ReadModelConfig(*wanted.adapter));
  scaled.quantized = base.quantized;
  base = std::move(scaled);
  return absl::OkStatus();
}

// That the ranks can share a row of this model, before anything is read.
absl::Status CheckContextParallel(const Training& training, int world_size) {
  const int ranks = training.context_ranks;
  if (ranks == 1) return absl::OkStatus();
  if (world_size % ranks != 0) {
    return MakeFieldError({"context_parallel",
                           absl::StrCat("a divisor of the job's ", world_size, " ranks"),
                           absl::StrCat(ranks)});
  }
  const int64_t tokens = *training.spec.max_seq_length;
  LL_RETURN_IF_ERROR(
      MakeShardPlan(training.config, training.attention, tokens, {}, ranks, 0).status());
  if (*training.spec.full_attention_steps == "0") return absl::OkStatus();
  return MakeShardPlan(training.config, {}, tokens, {}, ranks, 0).status();
}

// Takes the least recomputation whose forecast fits into the memory at hand.
void ChooseRecompute(Training& training, int local_ranks) {
  // Ranks share their host's memory; a GPU is one rank's.
  const Device device = ProcessDevice().is_cuda()
                            ? Device{"cuda", AvailableMemoryBytes()}
                            : Device{"cpu", AvailableMemoryBytes() / std::max(1, local_ranks)};
  const FitResult fit = Fits(training.config, training.spec, device);
  if (!fit.fits) training.warnings.push_back(absl::StrCat("memory is short: ", fit.explanation));
  TakePolicy({fit.recompute, *training.spec.activation_offload}, training);
}

absl::Status PrepareLoader(Training& training, std::shared_ptr<const TokenFile> file) {
  const JobSpec& spec = training.spec;
  if (*spec.sft) {
    SftLoaderOptions options;
    options.row_tokens = *spec.max_seq_length;
    options.seed = static_cast<uint64_t>(*spec.seed);
    options.shuffle = *spec.shuffle;
    options.packing = *spec.sft_packing;
    options.truncation = *spec.truncation;
    options.skip_bad_samples = *spec.on_bad_sample == "skip";
    LL_ASSIGN_OR_RETURN(training.loader,
                        SftLoader::Create(std::move(file), options, &training.warnings));
    return absl::OkStatus();
  }
  LoaderOptions options;
  options.row_tokens = *spec.max_seq_length;
  options.seed = static_cast<uint64_t>(*spec.seed);
  options.shuffle = *spec.shuffle;
  options.document_boundaries = *spec.document_boundaries;
  LL_ASSIGN_OR_RETURN(training.loader, Loader::Create(std::move(file), options));
  return absl::OkStatus();
}

// A length too short for a prompt is an error now, not at the first evaluation.
absl::Status CheckPasskeyLengths(const Training& training) {
  return MakePasskeyTests(
             PasskeyOptionsOf(training.spec),
             [&](absl::string_view text) { return training.passkey_encoder->Encode(text); })
      .status();
}

// Ids of another tokenizer than the model's stand for other words. A warning, no error: a file of
// the same tokenizer that another program wrote has another hash. Nothing where a side does not
// say.
void CheckTokenizer(const TokenFile& file, absl::string_view field, Training& training) {
  const std::string given = training.spec.tokenizer.value_or(training.spec.model.value_or(""));
  std::vector<std::string> files = {given};
  if (IsDirectory(given)) files = {given + "/tokenizer.json", given + "/tokenizer.model"};
  std::string other;
  for (const std::string& path : files) {
    if (file.tokenizer_hash().empty() || !FileExists(path)) continue;
    const absl::StatusOr<std::string> hash = Sha256HexOfFile(path);
    if (hash.ok() && *hash == file.tokenizer_hash()) return;
    if (other.empty()) other = path;
  }
  if (other.empty()) return;
  training.warnings.push_back(absl::StrCat(
      field, ": packed with another tokenizer than ", other,
      ", so that its ids may stand for other words: pack it with --tokenizer ", given));
}

absl::Status PrepareData(Training& training, const PackPlace& place) {
  const JobSpec& spec = training.spec;
  if (*spec.eval_steps > 0) {
    LL_ASSIGN_OR_RETURN(training.eval_file,
                        OpenTokenFile(*spec.eval_data, "eval_data", training.config.vocab_size));
    CheckTokenizer(*training.eval_file, "eval_data", training);
  }
  if (!spec.passkey_lengths.empty()) {
    LL_ASSIGN_OR_RETURN(PromptEncoder encoder,
                        PromptEncoder::Open(spec.tokenizer.value_or(spec.model.value_or("")),
                                            training.config.vocab_size));
    training.passkey_encoder = std::make_shared<PromptEncoder>(std::move(encoder));
    LL_RETURN_IF_ERROR(CheckPasskeyLengths(training));
  }
  std::string path = *spec.data;
  if (IsTextData(path)) {
    LL_ASSIGN_OR_RETURN(path, PackTextData(spec, place, &training.warnings));
  }
  LL_ASSIGN_OR_RETURN(auto file, OpenTokenFile(path, "data", training.config.vocab_size));
  CheckTokenizer(*file, "data", training);
  LL_RETURN_IF_ERROR(PrepareLoader(training, std::move(file)));
  LL_ASSIGN_OR_RETURN(training.data_fingerprint, TokenFileFingerprint(path, *spec.sft));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<JobSpec> ReadSpec(const std::string& path, const std::vector<std::string>& settings,
                                 std::vector<std::string>* notes) {
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  auto spec = ParseJobSpec(text, notes);
  if (!spec.ok()) return Annotate(spec.status(), path);
  for (const std::string& setting : settings) {
    const size_t equals = setting.find('=');
    if (equals == std::string::npos) return MakeFieldError({"--set", "key=value", setting});
    LL_RETURN_IF_ERROR(SetField(*spec, setting.substr(0, equals), setting.substr(equals + 1)));
  }
  return spec;
}

absl::StatusOr<LlamaConfig> ReadModelConfig(const std::string& folder) {
  const std::string path = folder + "/config.json";
  if (!FileExists(path)) {
    return MakeFieldError(
        {"model", "a Hugging Face folder with config.json", folder,
         IsDirectory(folder) ? "the folder has no config.json" : "there is no such folder"},
        absl::StatusCode::kNotFound);
  }
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  auto config = ParseLlamaConfig(text);
  if (!config.ok()) return Annotate(config.status(), folder);
  TakeDtypeOfWeights(folder, *config);
  return config;
}

std::vector<std::string> TokenizerFiles(const std::string& folder) {
  std::vector<std::string> found;
  for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt",
                           "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                           "chat_template.jinja", "chat_template.json", "generation_config.json"}) {
    const std::string path = folder + "/" + name;
    if (FileExists(path)) found.push_back(path);
  }
  return found;
}

absl::StatusOr<std::shared_ptr<const TokenFile>> OpenTokenFile(const std::string& path,
                                                               const std::string& field,
                                                               int64_t vocab_size) {
  auto file = TokenFile::Open(path, vocab_size);
  if (!file.ok()) return Annotate(file.status(), field);
  return file;
}

absl::StatusOr<Training> PrepareTraining(const JobSpec& given, int local_ranks,
                                         const PackPlace& place, bool random_weights) {
  Training training;
  LL_RETURN_IF_ERROR(Validate(given));
  LlamaConfig base;
  if (given.model_config) {
    LL_ASSIGN_OR_RETURN(base, ReadInlineConfig(*given.model_config));
  } else if (given.model) {
    LL_ASSIGN_OR_RETURN(base, ReadModelConfig(*given.model));
  }
  JobSpec wanted = given;
  if (base.quantized && !wanted.quantization && wanted.method != "full")
    wanted.quantization = "nf4";
  if (wanted.adapter) LL_RETURN_IF_ERROR(StartFromAdapter(wanted, base));
  LL_ASSIGN_OR_RETURN(training.spec,
                      Resolve(wanted, {base.ParameterCount(), base.max_position_embeddings}));
  JobSpec& spec = training.spec;
  LL_RETURN_IF_ERROR(CheckSupported(spec));
  if (*spec.precision == "auto") spec.precision = "bf16";
  const int64_t original_override = spec.original_context_length.value_or(0);
  LL_RETURN_IF_ERROR(CheckContextLength(base, *spec.context_length, original_override));
  LL_ASSIGN_OR_RETURN(
      training.config,
      ExtendContext(base, *spec.context_length, RopeTypeFromName(*spec.rope), original_override));
  // A `full` checkpoint holds the model itself, in the compute type; an adapter's base keeps its
  // own.
  if (*spec.method == "full") {
    training.config.dtype = *spec.precision == "fp32" ? "float32" : "bfloat16";
    training.config.quantized = false;
    training.config.raw.erase("quantization_config");
  }
  training.base_parameters = base.ParameterCount();
  training.attention = AttentionOf(spec);
  if (training.attention.kind == AttentionKind::kS2 && training.attention.wrap == WrapKind::kRoll) {
    training.warnings.push_back(
        "wrap: roll lets the first tokens of a row see its last ones while training; it is here to "
        "compare with the paper's pseudo-code, wrap: split leaks nothing");
  }
  if (const auto dropout = base.raw.value("attention_dropout", nlohmann::json());
      dropout.is_number() && dropout != 0) {
    training.warnings.push_back(absl::StrCat("config.json attention_dropout ", dropout.dump(),
                                             ": attention trains without dropout here"));
  }
  training.options = OptionsOf(spec);
  training.context_ranks = static_cast<int>(*spec.context_parallel);
  LL_RETURN_IF_ERROR(CheckContextParallel(training, local_ranks));
  training.group_by_row = spec.sft_group.value_or("context") == "longlora_sft";
  if (spec.model_config || random_weights) {
    training.weights = std::make_unique<RandomWeights>(training.options.seed, training.config);
  } else {
    LL_ASSIGN_OR_RETURN(training.weights, HfFolder::Open(*spec.model, base));
    LL_ASSIGN_OR_RETURN(training.base_fingerprint, ModelFingerprint(*spec.model, base.quantized));
  }
  const std::string tokenizer = spec.tokenizer.value_or(spec.model.value_or(""));
  if (IsDirectory(tokenizer)) {
    training.tokenizer_files = TokenizerFiles(tokenizer);
  } else if (FileExists(tokenizer)) {
    training.tokenizer_files = {tokenizer};
  }
  ChooseRecompute(training, local_ranks);
  LL_RETURN_IF_ERROR(PrepareData(training, place));
  LL_RETURN_IF_ERROR(CountSteps(training));
  return training;
}

absl::Status CountSteps(Training& training) {
  JobSpec& spec = training.spec;
  if (spec.num_train_epochs) {
    spec.max_steps =
        StepsOfEpochs(*spec.num_train_epochs, training.loader->rows(), *spec.global_batch_size);
    LL_RETURN_IF_ERROR(Validate(spec));
  }
  training.full_attention_from = *spec.max_steps - spec.FullAttentionSteps();
  return absl::OkStatus();
}

AttentionSpec AttentionOfRow(const Training& training, int64_t step, int64_t tokens) {
  if (step >= training.full_attention_from) return {};
  AttentionSpec attention = training.attention;
  if (training.group_by_row) attention.group_tokens = LongLoraSftGroupTokens(tokens);
  return attention;
}

}  // namespace ll
