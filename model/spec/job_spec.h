// What a job is, as one flat set of keys that YAML files, flags (`--set key=value`) and
// proto/job.proto share.
//
// Every key is optional: absent means "not given". Resolve() fills in the defaults of the method,
// of the recipe and of the model, so a resolved spec holds every value that has an effect and can
// be stored and compared. Meaning, range and default of each key stand in one table,
// spec_fields.cc. Reading order: job_spec.h, spec_fields.cc, parse.cc, validate.cc, resolve.cc.
//
// Units: lengths in tokens, durations in seconds. Plain values; functions are thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/spec/base_format.h"
#include "nlohmann/json.hpp"

namespace ll {

struct JobSpec {
  std::optional<std::string> name, kind, model, adapter, model_config, tokenizer;
  std::optional<int64_t> context_length, original_context_length, max_seq_length;
  std::optional<std::string> data, eval_data;
  std::optional<bool> sft;
  std::optional<std::string> prompt_template, truncation, on_bad_sample;
  std::optional<bool> sft_packing;
  std::optional<std::string> sft_group;

  std::optional<std::string> method, quantization, attention, wrap, full_attention_steps;
  std::optional<double> group_ratio;
  std::optional<std::string> rope;
  std::optional<int64_t> lora_rank;
  std::optional<double> lora_alpha, lora_dropout;
  std::optional<bool> use_rslora;
  std::vector<std::string> target_modules;  // empty: not given
  std::vector<std::string>
      trainable;  // embed, norm; {"none"}: explicitly nothing; empty: not given

  std::optional<double> learning_rate, adam_beta1, adam_beta2, weight_decay, max_grad_norm;
  std::optional<int64_t> warmup_steps;
  std::optional<std::string> lr_schedule;
  std::optional<int64_t> per_device_batch_size, gradient_accumulation_steps, global_batch_size;
  std::optional<bool> deterministic, document_boundaries, shuffle;
  // Passes over the data. Absent beside a given max_steps after Resolve; without one max_steps is
  // known when the data is (StepsOfEpochs).
  std::optional<double> num_train_epochs;
  std::optional<int64_t> max_steps, logging_steps, save_steps, save_total_limit, eval_steps, seed;
  std::optional<int64_t> early_stopping_patience;
  std::optional<double> early_stopping_threshold;
  std::optional<std::string> precision, recompute;
  std::optional<bool> activation_offload, shard_base;
  std::optional<int64_t> zero_stage;
  std::optional<std::string> on_nan, on_loss_spike, on_oom;
  std::optional<double> loss_spike_sigma;
  std::optional<std::string> checkpoint_uri;
  std::optional<int64_t> save_keep_every;

  std::optional<std::string> eval_task;
  std::optional<int64_t> eval_seq_len, eval_context_size, eval_sliding_window;
  std::optional<std::string> eval_mode, job;
  std::optional<bool> eval_compare_base;
  std::optional<int64_t> eval_num_tests;
  std::vector<int64_t> passkey_lengths;
  std::optional<int64_t> passkey_depths, passkey_max_tokens, passkey_interval;
  std::vector<int64_t> topic_lengths;
  std::optional<std::string> topic_prompt;
  std::optional<std::string> merge_out, merge_dtype, merge_onto;

  std::optional<int64_t> gpus, max_gpus, context_parallel;
  std::vector<std::string> gpu_types;  // empty: any that holds the job
  std::optional<std::string> plan, queue;
  std::optional<bool> force;
  std::optional<int64_t> priority, max_retries;
  std::vector<std::string> after, after_any;
  std::map<std::string, std::string> labels;
  std::optional<int64_t> max_runtime, min_runtime, ttl_after_finished, max_headless, deadline;
  std::optional<std::string> notify;
  std::vector<int64_t> stages, stage_steps;
  std::optional<std::string> gate;

  bool operator==(const JobSpec&) const = default;

  // Whether the input embedding / the norms train beside LoRA (key `trainable`). Method `full`
  // trains everything.
  bool TrainsEmbedding() const;
  bool TrainsNorm() const;
  // How the frozen linear weights are kept (key `quantization`).
  BaseFormat Base() const;
  // Steps at the end of the training that use full attention (key `full_attention_steps`, of
  // max_steps, rounded up): sparse attention alone loses retrieval. 0 before Resolve.
  int64_t FullAttentionSteps() const;
};

// What Resolve may know about the model; zero where unknown.
struct ModelFacts {
  int64_t parameter_count = 0;          // the papers use a lower learning rate for 70B
  int64_t max_position_embeddings = 0;  // default of context_length
};

// Parses YAML or JSON (text that starts with '{'): one mapping of keys to values. Accepts
// LongQLoRA's `train_args` names as aliases; keys of such files that have no meaning here
// (report_to, deepspeed, …) are left out, each with a sentence in `notes`. Does not check ranges:
// Validate does. Errors (InvalidArgument, with the line where known): not a mapping, unknown key
// (naming the nearest known one), duplicate key, wrong type.
absl::StatusOr<JobSpec> ParseJobSpec(absl::string_view text,
                                     std::vector<std::string>* notes = nullptr);

// Sets one key from its text, as `--set key=value` and flags give it: "0.25", "true", "embed,norm",
// "team=nlp,run=7". An empty value takes the key away. Errors: unknown key, wrong type.
absl::Status SetField(JobSpec& spec, absl::string_view key, absl::string_view value_text);

// The keys that are given, in the table's order, under their own names.
nlohmann::ordered_json ToJson(const JobSpec& spec);
std::string ToYaml(const JobSpec& spec);

// Optimizer steps of `epochs` passes over `rows` > 0 training rows, rounded up, at least one.
int64_t StepsOfEpochs(double epochs, int64_t rows, int64_t global_batch_size);

// Checks every given value against its range and against the others; the error names the key, what
// was expected and what was found. An unresolved spec may lack any key.
absl::Status Validate(const JobSpec& spec);

// `spec` with every key that has an effect for its kind set. Given values stay. Idempotent:
// resolving a resolved spec changes nothing. Errors: those of Validate; a key without a default is
// missing (model, context_length, data, …).
absl::StatusOr<JobSpec> Resolve(const JobSpec& spec, const ModelFacts& facts = {});

// "q_proj" … "down_proj": the linear layers of a decoder layer, what `all-linear` stands for.
const std::vector<std::string>& AllLinearModules();

// One line per key that differs, "max_steps: 100 -> 200"; "(not given)" stands for absence.
std::vector<std::string> Differences(const JobSpec& from, const JobSpec& to);

}  // namespace ll
