// The defaults of methods and kinds (validate.cc: what is refused).
#include <algorithm>
#include <cmath>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file_name.h"
#include "base/status_macros.h"
#include "base/store_uri.h"
#include "model/spec/job_spec.h"

namespace ll {
namespace {

const std::vector<std::string>& AttentionModules() {
  static const auto& names = *new std::vector<std::string>{"q_proj", "k_proj", "v_proj", "o_proj"};
  return names;
}
template <typename T, typename U>
void Default(std::optional<T>& value, U&& fallback) {
  if (!value) value = std::forward<U>(fallback);
}

absl::Status Missing(absl::string_view key, absl::string_view expected, absl::string_view hint) {
  return MakeFieldError({key, expected, "nothing", hint});
}

void DefaultMethod(JobSpec& spec) {
  Default(spec.method, spec.model_config ? "full" : "longlora");
  const std::string& method = *spec.method;
  const bool sparse = method == "longlora" || method == "longqlora";
  Default(spec.attention, sparse ? "s2" : "full");
  Default(spec.wrap, "split");
  Default(spec.group_ratio, 0.25);
  Default(spec.rope, "linear");
  Default(spec.full_attention_steps, "0");
  const bool longqlora = method == "longqlora";
  Default(spec.quantization, longqlora || method == "qlora" ? "nf4" : "none");
  if (method == "full") return;
  Default(spec.lora_rank, longqlora ? 64 : 8);
  Default(spec.lora_alpha, 16.0);
  Default(spec.lora_dropout, longqlora ? 0.05 : 0.0);
  Default(spec.use_rslora, false);
  if (spec.target_modules.empty())
    spec.target_modules = longqlora ? AllLinearModules() : AttentionModules();
  if (spec.target_modules.front() == "all-linear") spec.target_modules = AllLinearModules();
  if (spec.trainable.empty()) {
    spec.trainable = method == "longlora" ? std::vector<std::string>{"embed", "norm"}
                                          : std::vector<std::string>{"none"};
  }
}

void ResolvePasskey(JobSpec& spec) {
  if (spec.passkey_lengths.empty()) {
    Default(spec.passkey_max_tokens, 32000);
    Default(spec.passkey_interval, std::min<int64_t>(1000, *spec.passkey_max_tokens));
    Default(spec.eval_num_tests, 10);
  } else {
    Default(spec.passkey_depths, 5);
    Default(spec.eval_num_tests, 1);
  }
}

// The papers' recipes: LongLoRA's (its AdamW betas, not the code's) and, for longqlora, LongQLoRA's
// YAML files, where the betas are Hugging Face's.
void DefaultRecipe(JobSpec& spec, const ModelFacts& facts) {
  const bool longqlora = *spec.method == "longqlora";
  const bool large = facts.parameter_count >= 40'000'000'000;
  const double longqlora_rate = *spec.sft ? 1e-4 : 2e-4;
  Default(spec.learning_rate, longqlora ? longqlora_rate : large ? 1e-5 : 2e-5);
  Default(spec.adam_beta1, 0.9);
  Default(spec.adam_beta2, longqlora ? 0.999 : 0.95);
  Default(spec.weight_decay, 0.0);
  Default(spec.max_grad_norm, longqlora ? 0.3 : 1.0);
  Default(spec.warmup_steps, 20);
  Default(spec.lr_schedule, "constant_with_warmup");
  Default(spec.per_device_batch_size, 1);
  // global_batch_size is the invariant: given, it decides how much is accumulated; else it follows
  // from the others.
  const int64_t rows_at_once =
      *spec.per_device_batch_size * std::max<int64_t>(1, *spec.gpus / *spec.context_parallel);
  if (spec.global_batch_size) {
    Default(spec.gradient_accumulation_steps,
            (*spec.global_batch_size + rows_at_once - 1) / rows_at_once);
  }
  Default(spec.gradient_accumulation_steps, longqlora ? 16 : 8);
  Default(spec.global_batch_size, rows_at_once * *spec.gradient_accumulation_steps);
  Default(spec.deterministic, true);
  Default(spec.document_boundaries, false);
  Default(spec.shuffle, true);
  if (spec.max_steps) spec.num_train_epochs.reset();  // as Hugging Face's Trainer decides
  if (!spec.num_train_epochs) Default(spec.max_steps, 1000);
  Default(spec.logging_steps, 1);
  Default(spec.save_steps, 100);
  Default(spec.save_total_limit, 3);
  Default(spec.save_keep_every, 0);
  Default(spec.eval_steps, 0);
  Default(spec.early_stopping_patience, 0);
  Default(spec.early_stopping_threshold, 0.0);
  if (!spec.passkey_lengths.empty()) ResolvePasskey(spec);
  Default(spec.seed, 42);
  Default(spec.activation_offload, false);
  if (*spec.activation_offload) spec.recompute = "full";  // nothing but the layers' inputs is kept
  Default(spec.recompute, "auto");
  Default(spec.zero_stage, 0);
  Default(spec.shard_base, false);
  Default(spec.on_nan, "stop");
  Default(spec.on_loss_spike, "warn");
  Default(spec.loss_spike_sigma, 6.0);
  Default(spec.on_oom, "step_down");
}

absl::Status DefaultSft(JobSpec& spec) {
  Default(spec.on_bad_sample, "stop");
  if (!*spec.sft) {
    const std::pair<const char*, bool> kSftOnly[] = {
        {"prompt_template", spec.prompt_template.has_value()},
        {"truncation", spec.truncation.has_value()},
        {"sft_packing", spec.sft_packing.has_value()},
        {"sft_group", spec.sft_group.has_value()}};
    for (const auto& [key, given] : kSftOnly) {
      if (given) return MakeFieldError({"sft", absl::StrCat("true, because of ", key), "false"});
    }
    return absl::OkStatus();
  }
  Default(spec.prompt_template, *spec.method == "longqlora" ? "vicuna" : "longlora");
  Default(spec.truncation, "right");
  Default(spec.sft_packing, false);
  Default(spec.sft_group, "context");
  return absl::OkStatus();
}

absl::Status ResolveTrain(JobSpec& spec, const ModelFacts& facts) {
  if (!spec.model && !spec.model_config) {
    return Missing("model", "a registered model name or a Hugging Face folder", "give --model M");
  }
  if (!spec.context_length && facts.max_position_embeddings > 0)
    spec.context_length = facts.max_position_embeddings;
  if (!spec.context_length)
    return Missing("context_length", "a positive number of tokens", "give --ctx N");
  Default(spec.max_seq_length, *spec.context_length);
  Default(spec.sft, false);
  DefaultMethod(spec);
  LL_RETURN_IF_ERROR(DefaultSft(spec));
  DefaultRecipe(spec, facts);
  if (spec.checkpoint_uri)
    LL_RETURN_IF_ERROR(ParseStoreUri("checkpoint_uri", *spec.checkpoint_uri).status());
  if (*spec.eval_steps > 0 && !spec.eval_data) {
    return Missing("eval_data", "a token file, because eval_steps is set",
                   "give --set eval_data=FILE");
  }
  return absl::OkStatus();
}

absl::Status ResolveEval(JobSpec& spec) {
  if (!spec.model && !spec.job) {
    return Missing("model", "a model or a job to evaluate", "give --model M or --job JOB");
  }
  Default(spec.eval_task, "perplexity");
  Default(spec.seed, 0);
  if (*spec.eval_task != "perplexity" && spec.context_length)
    Default(spec.eval_context_size, *spec.context_length);
  if (*spec.eval_task == "passkey") {
    ResolvePasskey(spec);
    return absl::OkStatus();
  }
  if (*spec.eval_task == "topics") {
    if (spec.topic_lengths.empty()) spec.topic_lengths = {3000, 6000, 10000, 13000, 16000};
    Default(spec.topic_prompt, "auto");
    Default(spec.eval_num_tests, 10);
    return absl::OkStatus();
  }
  Default(spec.eval_compare_base, false);
  Default(spec.eval_seq_len, spec.context_length.value_or(2048));
  Default(spec.eval_context_size, spec.context_length
                                      ? std::max(*spec.context_length, *spec.eval_seq_len)
                                      : *spec.eval_seq_len);
  Default(spec.eval_sliding_window, 256);
  Default(spec.eval_mode, "official");
  if (!spec.eval_data && spec.data) spec.eval_data = spec.data;
  return absl::OkStatus();
}

absl::Status CheckOneRank(const JobSpec& spec, const char* why) {
  if (*spec.gpus == 1) return absl::OkStatus();
  return MakeFieldError({"gpus", absl::StrCat("1, because ", why), absl::StrCat(*spec.gpus)});
}

absl::Status ResolveGenerate(const JobSpec& spec) {
  if (!spec.model && !spec.job && !spec.adapter)
    return Missing("model", "a model or a job", "give --model M or --job JOB");
  return CheckOneRank(spec, "one process answers");
}

absl::Status ResolveVerify(const JobSpec& spec) {
  if (spec.job || spec.adapter) return absl::OkStatus();
  return Missing("job", "a job, or in adapter a checkpoint, to verify", "give --job JOB");
}

absl::Status ResolveMerge(JobSpec& spec) {
  if (!spec.model && !spec.job && !spec.adapter)
    return Missing("job", "a job or an adapter to merge", "give --job JOB");
  LL_RETURN_IF_ERROR(CheckOneRank(spec, "one process writes a merge's files"));
  Default(spec.merge_out, "merged");
  if (!absl::StartsWith(*spec.merge_out, "/") && !IsPlainFileName(*spec.merge_out)) {
    return MakeFieldError({"merge_out", "a name without '/', or an absolute path",
                           absl::StrCat("\"", absl::CEscape(spec.merge_out->substr(0, 80)), "\"")});
  }
  Default(spec.quantization, "none");
  return absl::OkStatus();
}

}  // namespace

BaseFormat JobSpec::Base() const {
  const std::string kept = quantization.value_or("none");
  if (kept == "nf4") return BaseFormat::kNf4;
  return kept == "fp8" ? BaseFormat::kFp8 : BaseFormat::kCompute;
}

bool JobSpec::TrainsEmbedding() const {
  return method == "full" || std::count(trainable.begin(), trainable.end(), "embed") > 0;
}
bool JobSpec::TrainsNorm() const {
  return method == "full" || std::count(trainable.begin(), trainable.end(), "norm") > 0;
}

const std::vector<std::string>& AllLinearModules() {
  static const auto& names = *new std::vector<std::string>{
      "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  return names;
}

int64_t StepsOfEpochs(double epochs, int64_t rows, int64_t global_batch_size) {
  const double steps = epochs * static_cast<double>(rows) / static_cast<double>(global_batch_size);
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(steps)));
}

absl::StatusOr<JobSpec> Resolve(const JobSpec& given, const ModelFacts& facts) {
  LL_RETURN_IF_ERROR(Validate(given));
  JobSpec spec = given;
  Default(spec.kind, "train");
  if (*spec.kind == "train") Default(spec.context_parallel, 1);
  Default(spec.gpus, spec.context_parallel.value_or(1));
  Default(spec.precision, "auto");
  Default(spec.plan, "auto");
  Default(spec.queue, "default");
  Default(spec.priority, 0);
  // A second try of a verification would hide what the first has found.
  Default(spec.max_retries, *spec.kind == "verify" ? 0 : 3);
  Default(spec.max_runtime, 0);
  Default(spec.ttl_after_finished, 0);
  Default(spec.max_headless, 24 * 3600);
  Default(spec.deadline, 0);
  if (*spec.kind == "train") {
    LL_RETURN_IF_ERROR(ResolveTrain(spec, facts));
  } else if (*spec.kind == "eval") {
    LL_RETURN_IF_ERROR(ResolveEval(spec));
  } else if (*spec.kind == "merge") {
    LL_RETURN_IF_ERROR(ResolveMerge(spec));
  } else if (*spec.kind == "verify") {
    LL_RETURN_IF_ERROR(ResolveVerify(spec));
  } else {
    LL_RETURN_IF_ERROR(ResolveGenerate(spec));
  }
  LL_RETURN_IF_ERROR(Validate(spec));  // a default may contradict a given key
  return spec;
}

}  // namespace ll
