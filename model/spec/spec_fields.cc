#include "model/spec/spec_fields.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "base/edit_distance.h"

namespace ll {
namespace {

using J = JobSpec;
constexpr double kMaxRanks = 65536;
constexpr double kMaxTokens = 16e6;  // longer contexts than any model reaches are typing errors

// Rows are built by these four helpers, so that the table below reads as one.
SpecField Text(std::string name, SpecMember member, std::string default_value, std::string help,
               std::vector<std::string> choices = {}, std::vector<std::string> aliases = {}) {
  return {.name = name,
          .member = member,
          .help = help,
          .default_value = default_value,
          .choices = choices,
          .aliases = aliases};
}
SpecField Number(std::string name, SpecMember member, std::string default_value, double min,
                 double max, std::string help, std::vector<std::string> aliases = {}) {
  return {.name = name,
          .member = member,
          .help = help,
          .default_value = default_value,
          .min = min,
          .max = max,
          .aliases = aliases};
}
SpecField Positive(std::string name, SpecMember member, std::string default_value, double max,
                   std::string help, std::vector<std::string> aliases = {}) {
  return {.name = name,
          .member = member,
          .help = help,
          .default_value = default_value,
          .min = 0,
          .max = max,
          .positive = true,
          .aliases = aliases};
}
SpecField Seconds(std::string name, SpecMember member, std::string default_value,
                  std::string help) {
  return {.name = name,
          .member = member,
          .help = help,
          .default_value = default_value,
          .min = 0,
          .seconds = true};
}

std::vector<SpecField> WhatFields() {
  return {
      Text("name", &J::name, "", "Free text for people; need not be unique."),
      Text("kind", &J::kind, "train", "What the job does.",
           {"train", "eval", "merge", "generate", "verify"}),
      Text("model", &J::model, "",
           "Registered model name (7b, 13b, 70b, …) or a Hugging Face folder on the workers.", {},
           {"model_name_or_path"}),
      Text("adapter", &J::adapter, "",
           "Adapter folder on the workers, trained on top of the model.", {}, {"peft_model"}),
      Text("model_config", &J::model_config, "",
           "A config.json (path or inline JSON) to train from random weights; method full only."),
      Text("tokenizer", &J::tokenizer, "the model's", "Tokenizer folder or file."),
      Positive("context_length", &J::context_length, "the model's context", kMaxTokens,
               "Target context in tokens; also sets the attention group size.",
               {"model_max_length", "ctx"}),
      Positive("original_context_length", &J::original_context_length,
               "what the model's config states", kMaxTokens,
               "Context in tokens the model was trained for, where its config is wrong or silent."),
      Positive("max_seq_length", &J::max_seq_length, "context_length", kMaxTokens,
               "Longest training row in tokens."),
      Text("data", &J::data, "the cluster's default",
           "Token file, or text to pack at the start (.txt, .jsonl, .json, also .gz and .zst; a "
           "folder, a pattern), on the workers; or a registered name.",
           {}, {"train_file"}),
      Text("eval_data", &J::eval_data, "data (kind eval)",
           "Token file for eval_steps and for eval jobs.", {}, {"eval_file"}),
      Text("sft", &J::sft, "false",
           "The data are instruction and answer pairs; loss on the answers only."),
      Text("prompt_template", &J::prompt_template, "longlora; longqlora vicuna",
           "sft only: how a sample becomes a prompt; chat_template is the model folder's own.",
           {"longlora", "llama2", "vicuna", "chatml", "chat_template"}),
      Text("truncation", &J::truncation, "right",
           "sft only: samples beyond max_seq_length lose their end, the start of their prompt, are "
           "left out, or stop the job.",
           {"right", "left", "drop", "error"}),
      Text("on_bad_sample", &J::on_bad_sample, "stop",
           "A record that cannot be used (no answer, broken JSON, …) stops the job or is skipped "
           "with a warning.",
           {"stop", "skip"}),
      Text("sft_packing", &J::sft_packing, "false",
           "sft only: several samples a row, with attention cut between them; else one."),
      Text("sft_group", &J::sft_group, "context",
           "sft only, attention group size: group_ratio x context_length, or LongLoRA's rule by "
           "the sample's length L (L/4 where 4096 divides L, else 8192).",
           {"context", "longlora_sft"}),
  };
}

std::vector<SpecField> MethodFields() {
  return {
      Text("method", &J::method, "longlora",
           "Preset of base, rank, trainable parts, attention and recipe.",
           {"full", "lora", "longlora", "qlora", "longqlora"}),
      Text("quantization", &J::quantization, "nf4 for qlora and longqlora, else none",
           "Storage of the frozen linear weights: NF4 is 4.13 bits a weight, doubly quantised; fp8 "
           "is e4m3 with a scale a row, for training in bf16, multiplied as such by GPUs that can.",
           {"none", "nf4", "fp8"}),
      Text("attention", &J::attention, "s2 for longlora and longqlora, else full",
           "Attention while training: shifted sparse, grouped without the shift, or full.",
           {"s2", "short", "full"}),
      Text("wrap", &J::wrap, "split",
           "s2 only: first and last half group apart (no future leak) or rolled together (the "
           "paper's pseudo-code).",
           {"split", "roll"}),
      Number("group_ratio", &J::group_ratio, "0.25", 0.125, 0.5,
             "Attention group size as a share of context_length."),
      Text("full_attention_steps", &J::full_attention_steps, "0",
           "The last steps in full attention, as a number or a share of max_steps such as 10%; "
           "sparse attention alone loses retrieval."),
      Text("rope", &J::rope, "linear", "How positions are scaled to context_length.",
           {"linear", "ntk", "dynamic", "yarn", "llama3", "none"}),
      Positive("lora_rank", &J::lora_rank, "8; longqlora 64", 4096, "Rank of the LoRA matrices.",
               {"lora_r"}),
      Positive("lora_alpha", &J::lora_alpha, "16", 65536, "LoRA scale is lora_alpha / lora_rank."),
      Text("use_rslora", &J::use_rslora, "false",
           "LoRA scale is lora_alpha / sqrt(lora_rank) instead (rank-stabilised LoRA)."),
      Number("lora_dropout", &J::lora_dropout, "0; longqlora 0.05", 0, 0.99,
             "Share of LoRA inputs dropped while training."),
      Text("target_modules", &J::target_modules, "q,k,v,o_proj; longqlora all linears",
           "Linear layers that get LoRA; all-linear for every one but the head.",
           {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
            "all-linear"}),
      Text("trainable", &J::trainable, "embed,norm for longlora, else none",
           "What trains in full beside LoRA; `none` for nothing.", {"embed", "norm", "none"},
           {"trainable_params"}),
  };
}

std::vector<SpecField> RecipeFields() {
  return {
      Positive("learning_rate", &J::learning_rate,
               "2e-5; 1e-5 from 40 B parameters on; longqlora 2e-4 (sft 1e-4)", 10,
               "Peak learning rate of AdamW."),
      Number("adam_beta1", &J::adam_beta1, "0.9", 0, 0.9999999, "AdamW's first-moment decay."),
      Number("adam_beta2", &J::adam_beta2, "0.95; longqlora 0.999", 0, 0.9999999,
             "AdamW's second-moment decay."),
      Number("weight_decay", &J::weight_decay, "0", 0, 1, "AdamW's decoupled weight decay."),
      Number("max_grad_norm", &J::max_grad_norm, "1.0; longqlora 0.3", 0, 1e9,
             "Global gradient norm to clip at; 0 for no clipping."),
      Number("warmup_steps", &J::warmup_steps, "20", 0, 1e9, "Steps of linear warm-up."),
      Text("lr_schedule", &J::lr_schedule, "constant_with_warmup",
           "Learning rate after the warm-up.", {"constant_with_warmup", "linear", "cosine"},
           {"lr_scheduler_type"}),
      Positive("per_device_batch_size", &J::per_device_batch_size, "1", 65536,
               "Rows a rank runs at a time.", {"per_device_train_batch_size"}),
      Positive("gradient_accumulation_steps", &J::gradient_accumulation_steps, "8; longqlora 16",
               65536, "Batches a rank accumulates before an optimizer step."),
      Positive("global_batch_size", &J::global_batch_size,
               "per_device_batch_size x gradient_accumulation_steps x gpus", 1e6,
               "Rows per optimizer step; what stays the same when the number of ranks changes."),
      Text("deterministic", &J::deterministic, "true",
           "Same build, device, plan and seed give the same bits."),
      Text("document_boundaries", &J::document_boundaries, "false",
           "Attention does not cross documents inside a row."),
      Text("shuffle", &J::shuffle, "true",
           "Visit rows in a seeded permutation per epoch; else in file order."),
      Positive("max_steps", &J::max_steps, "1000, or num_train_epochs", 1e9, "Optimizer steps."),
      Positive(
          "num_train_epochs", &J::num_train_epochs, "", 1e6,
          "Passes over the data, rounded up to whole steps; max_steps wins where both are given."),
      Positive("logging_steps", &J::logging_steps, "1", 1e9, "Steps between reported steps."),
      Number("save_steps", &J::save_steps, "100", 0, 1e9,
             "Steps between checkpoints; 0 for the final one only."),
      Number("save_total_limit", &J::save_total_limit, "3", 0, 1e6, "Checkpoints kept; 0 for all."),
      Number("eval_steps", &J::eval_steps, "0", 0, 1e9,
             "Steps between evaluations on eval_data; 0 for none."),
      Number(
          "early_stopping_patience", &J::early_stopping_patience, "0", 0, 1e6,
          "Evaluations in a row without a better perplexity that end the training; 0 for never."),
      Number("early_stopping_threshold", &J::early_stopping_threshold, "0", 0, 1e9,
             "By how much perplexity must fall below the best one to count as better."),
      Number("seed", &J::seed, "42", 0, 9.2e18,
             "Seed of initial LoRA weights, row order and dropout."),
      Text("precision", &J::precision, "auto",
           "Compute type; auto: bf16 to train; to evaluate the model's on GPUs and fp32 on CPUs.",
           {"auto", "bf16", "fp32"}),
      Text("recompute", &J::recompute, "auto",
           "Activations computed again in the backward pass instead of kept.",
           {"auto", "none", "selective", "full"}),
      Text("activation_offload", &J::activation_offload, "false",
           "Keep what the backward pass needs in pinned host memory instead of the GPU's."),
      Number("zero_stage", &J::zero_stage, "0", 0, 2,
             "What the ranks divide between them: 0 nothing, 1 the optimizer's state, 2 the "
             "gradients too (ZeRO)."),
      Text("shard_base", &J::shard_base, "false",
           "Divide the frozen weights over the ranks too and gather them layer by layer."),
      Text("on_nan", &J::on_nan, "stop",
           "A loss or gradient that is not a number: stop, skip the step, or roll back to the "
           "newest checkpoint and skip its rows.",
           {"stop", "skip", "rollback"}),
      Text("on_loss_spike", &J::on_loss_spike, "warn",
           "A loss above loss_spike_sigma: warn, skip the step, roll back as on_nan does, or stop.",
           {"warn", "skip", "rollback", "stop"}),
      Positive("loss_spike_sigma", &J::loss_spike_sigma, "6", 1e6,
               "Standard deviations above the mean of the last steps from which a loss is a "
               "spike."),
      Text("on_oom", &J::on_oom, "step_down",
           "A step that runs out of memory: step_down repeats it with more recomputation and "
           "offload, fail ends the job.",
           {"step_down", "fail"}),
      Text("checkpoint_uri", &J::checkpoint_uri, "",
           "Where finished checkpoints are copied to: s3://bucket/prefix, or a folder all workers "
           "see; a new attempt that lacks them locally fetches them from there."),
      Number("save_keep_every", &J::save_keep_every, "0", 0, 1e9,
             "Checkpoints at multiples of so many steps stay whatever save_total_limit says; 0 for "
             "none."),
  };
}

std::vector<SpecField> EvalFields() {
  return {
      Text("eval_task", &J::eval_task, "perplexity",
           "What an eval job measures: perplexity, retrieval of a pass key, or of the first topic.",
           {"perplexity", "passkey", "topics"}),
      Number("eval_seq_len", &J::eval_seq_len, "2048", 2, kMaxTokens,
             "Tokens per evaluated window."),
      Positive("eval_context_size", &J::eval_context_size, "eval_seq_len", kMaxTokens,
               "Context in tokens the positions are scaled to."),
      Positive("eval_sliding_window", &J::eval_sliding_window, "256", kMaxTokens,
               "Tokens between window starts."),
      Text("eval_mode", &J::eval_mode, "official",
           "official: LongLoRA's mean over whole windows, the last one dropped; exact: each token "
           "of the file once.",
           {"official", "exact"}),
      Text(
          "job", &J::job, "",
          "Job whose newest checkpoint is evaluated, merged or trained on; with it in `after`, the "
          "checkpoint that it ends with."),
      Text("eval_compare_base", &J::eval_compare_base, "false",
           "Perplexity also at the base model's own context, beside the base model's."),
      Positive("eval_num_tests", &J::eval_num_tests, "10; in a passkey grid 1", 10000,
               "Prompts a length, or a cell of a passkey grid."),
      Positive("passkey_lengths", &J::passkey_lengths, "LongLoRA's, by passkey_max_tokens",
               kMaxTokens,
               "Prompt lengths in tokens of a passkey grid; in a training, of the one that each "
               "evaluation runs."),
      Positive("passkey_depths", &J::passkey_depths, "5", 1000,
               "Places of the pass key in a grid, evenly from the prompt's start to its end."),
      Positive("passkey_max_tokens", &J::passkey_max_tokens, "32000", kMaxTokens,
               "Longest prompt, about, of LongLoRA's passkey test."),
      Positive("passkey_interval", &J::passkey_interval, "1000", kMaxTokens,
               "Tokens, about, between the lengths of LongLoRA's passkey test."),
      Positive("topic_lengths", &J::topic_lengths, "3000,6000,10000,13000,16000", kMaxTokens,
               "Lengths in tokens of the dialogues of topic retrieval."),
      Text("topic_prompt", &J::topic_prompt, "auto",
           "How topic retrieval asks: by the folder's chat template, as a plain transcript, or by "
           "the template where there is one.",
           {"auto", "chat", "plain"}),
      Text("merge_out", &J::merge_out, "merged",
           "kind merge: name of the folder in the job's own, or an absolute path on the workers."),
      Text("merge_dtype", &J::merge_dtype, "the base's",
           "kind merge: type of the weights that are written.", {"bf16", "fp16", "fp32"}),
      Text("merge_onto", &J::merge_onto, "what the base folder holds",
           "kind merge of a quantised base: its original weights, or its values in NF4.",
           {"16bit", "nf4"}),
  };
}

SpecField Ranks() {
  SpecField field = Positive("gpus", &J::gpus, "context_parallel", kMaxRanks,
                             "Ranks of the job: GPUs, or CPU slots on CPU workers; a training may "
                             "give a range, 4-8, and takes what is there.");
  field.range_end = "max_gpus";
  return field;
}

std::vector<SpecField> ServiceFields() {
  return {
      Ranks(),
      Positive("max_gpus", &J::max_gpus, "gpus", kMaxRanks,
               "The most ranks, where gpus is the fewest; gpus: 4-8 gives both."),
      Positive(
          "context_parallel", &J::context_parallel, "1", 64,
          "Ranks that share each row of a training, every one with its part of the tokens; gpus "
          "is a multiple of it. S2-Attn with split wants 2, 4 or 8."),
      Text("gpu_types", &J::gpu_types, "any that holds the job",
           "Types of GPUs that the job may run on, as workers tell them: H100, A100-80; A100 is "
           "every A100; cpu stands for CPU slots. A gang is of one type.",
           {}, {"gpu_type"}),
      Text("plan", &J::plan, "auto", "Parallel plan.", {"auto"}),
      Text("force", &J::force, "false",
           "Run although the forecast says that it does not fit; the job's record says so."),
      Text("queue", &J::queue, "default", "Queue the job waits in."),
      Number("priority", &J::priority, "0", -1e6, 1e6, "Higher runs first."),
      Number("max_retries", &J::max_retries, "3", 0, 1000,
             "New attempts after failures that are not the user's."),
      Text("after", &J::after, "", "Job ids that must succeed first."),
      Text("after_any", &J::after_any, "", "Job ids that must have ended first, well or not."),
      Text("labels", &J::labels, "", "Your own key=value pairs."),
      Seconds("max_runtime", &J::max_runtime, "0",
              "Seconds (or 90m, 24h) after which the job ends; 0 for no limit."),
      Seconds("min_runtime", &J::min_runtime, "the coordinator's, 10m",
              "Seconds an attempt trains before it may be preempted; 0 for at once."),
      Seconds("ttl_after_finished", &J::ttl_after_finished, "0",
              "Seconds after its end at which the job's record may go; 0 for never."),
      Seconds("max_headless", &J::max_headless, "24h",
              "Seconds a rank trains on while the coordinator is out of sight."),
      Seconds("deadline", &J::deadline, "0",
              "Seconds (or 90m, 24h) after its submission by which the job must have ended; 0 for "
              "none."),
      Text("notify", &J::notify, "",
           "Endpoints of the operator's webhooks, by name, that are told of the job; the "
           "label notify."),
      Positive("stages", &J::stages, "", kMaxTokens,
               "Rising context lengths to train one after the other, the last one context_length; "
               "then the result is merged."),
      Positive("stage_steps", &J::stage_steps, "max_steps in even parts", 1e9,
               "Steps of each stage."),
      Text("gate", &J::gate, "",
           "Conditions that an eval job's result, or every stage, must meet, for example "
           "`passkey>=0.9,ppl<=12.5`."),
  };
}

std::string DescribeNumber(const SpecField& field, absl::string_view noun) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  if (!field.range_end.empty())
    return absl::StrCat("a positive ", noun, ", or a range such as 4-8");
  if (field.positive) return absl::StrCat("a positive ", noun);
  if (field.min > -kInf && field.max <= kMaxPrintedRange) {
    return absl::StrCat(noun == "integer" ? "an " : "a ", noun, " from ", field.min, " to ",
                        field.max);
  }
  if (field.min > -kInf)
    return absl::StrCat(noun == "integer" ? "an " : "a ", noun, " >= ", field.min);
  return absl::StrCat(noun == "integer" ? "an " : "a ", noun);
}

}  // namespace

const std::vector<SpecField>& SpecFields() {
  static const auto& fields = *[] {
    auto* all = new std::vector<SpecField>;
    for (auto part : {WhatFields, MethodFields, RecipeFields, EvalFields, ServiceFields}) {
      for (SpecField& field : part()) all->push_back(std::move(field));
    }
    return all;
  }();
  return fields;
}

std::vector<std::string> SpecFieldNames() {
  std::vector<std::string> names;
  for (const SpecField& field : SpecFields()) names.push_back(field.name);
  return names;
}

const SpecField* FindSpecField(absl::string_view name_or_alias) {
  for (const SpecField& field : SpecFields()) {
    if (field.name == name_or_alias) return &field;
    for (const std::string& alias : field.aliases) {
      if (alias == name_or_alias) return &field;
    }
  }
  return nullptr;
}

std::string NearestSpecKey(absl::string_view key) {
  std::vector<std::string> names;
  for (const SpecField& field : SpecFields()) {
    names.push_back(field.name);
    names.insert(names.end(), field.aliases.begin(), field.aliases.end());
  }
  const std::string nearest = NearestName(key, names);
  return nearest.empty() ? "" : FindSpecField(nearest)->name;
}

std::string DescribeType(const SpecField& field) {
  struct Visitor {
    const SpecField& f;
    std::string operator()(std::optional<std::string> JobSpec::*) const {
      return f.choices.empty() ? "text" : absl::StrCat("one of ", absl::StrJoin(f.choices, ", "));
    }
    std::string operator()(std::optional<int64_t> JobSpec::*) const {
      return f.seconds ? "seconds, or a duration such as 90m or 24h" : DescribeNumber(f, "integer");
    }
    std::string operator()(std::optional<double> JobSpec::*) const {
      return DescribeNumber(f, "number");
    }
    std::string operator()(std::optional<bool> JobSpec::*) const { return "true or false"; }
    std::string operator()(std::vector<std::string> JobSpec::*) const {
      return f.choices.empty() ? "a list of texts"
                               : absl::StrCat("a list of ", absl::StrJoin(f.choices, ", "));
    }
    std::string operator()(std::vector<int64_t> JobSpec::*) const {
      return "a list of positive integers";
    }
    std::string operator()(std::map<std::string, std::string> JobSpec::*) const {
      return "a map of texts";
    }
  };
  return std::visit(Visitor{field}, field.member);
}

bool IsGiven(const JobSpec& spec, const SpecField& field) {
  struct Visitor {
    const JobSpec& s;
    bool operator()(std::optional<std::string> JobSpec::*m) const { return (s.*m).has_value(); }
    bool operator()(std::optional<int64_t> JobSpec::*m) const { return (s.*m).has_value(); }
    bool operator()(std::optional<double> JobSpec::*m) const { return (s.*m).has_value(); }
    bool operator()(std::optional<bool> JobSpec::*m) const { return (s.*m).has_value(); }
    bool operator()(std::vector<std::string> JobSpec::*m) const { return !(s.*m).empty(); }
    bool operator()(std::vector<int64_t> JobSpec::*m) const { return !(s.*m).empty(); }
    bool operator()(std::map<std::string, std::string> JobSpec::*m) const {
      return !(s.*m).empty();
    }
  };
  return std::visit(Visitor{spec}, field.member);
}

}  // namespace ll
