// From a job's spec to the things a training step works on. Everything a user can get wrong is
// checked here, before anything is written.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/llama.h"
#include "model/plan/config.h"
#include "model/spec/job_spec.h"
#include "model/text/token_file.h"
#include "worker/trainer/data/row_source.h"
#include "worker/trainer/data/text_data.h"
#include "worker/trainer/eval/prompt_encoder.h"

namespace ll {

// Reads a spec file (YAML or JSON) and applies "key=value" settings on top; not resolved. `notes`
// gets what ParseJobSpec says about keys of other programs.
absl::StatusOr<JobSpec> ReadSpec(const std::string& path, const std::vector<std::string>& settings,
                                 std::vector<std::string>* notes = nullptr);

// The config of a model folder; a dtype that config.json does not name is the weights'. NotFound
// with a hint where `folder` is no Hugging Face folder.
absl::StatusOr<LlamaConfig> ReadModelConfig(const std::string& folder);

// The files of a model folder that go with its weights wherever they go: tokenizer, chat template,
// generation settings.
std::vector<std::string> TokenizerFiles(const std::string& folder);

// Opens a token file; errors carry `field` ("data", "eval_data").
absl::StatusOr<std::shared_ptr<const TokenFile>> OpenTokenFile(const std::string& path,
                                                               const std::string& field,
                                                               int64_t vocab_size);

struct Training {
  JobSpec spec;        // resolved
  LlamaConfig config;  // with the extended context
  AttentionSpec attention;
  int context_ranks = 1;            // that share each row
  int64_t full_attention_from = 0;  // first 0-based step that uses full attention instead
  ModelOptions options;
  std::unique_ptr<WeightSource> weights;
  std::unique_ptr<RowSource> loader;
  bool group_by_row = false;  // LongLoRA's SFT rule: the attention group goes by a row's length
  std::shared_ptr<const TokenFile> eval_file;            // null without eval_steps
  std::shared_ptr<const PromptEncoder> passkey_encoder;  // null without passkey_lengths
  std::string data_fingerprint, base_fingerprint;
  std::vector<std::string> tokenizer_files;  // of the model, to be put beside a `full` checkpoint
  std::vector<std::string> warnings;
  int64_t base_parameters = 0;
};

// Everything but the model itself: spec resolved against the model's config, files opened, options
// chosen; text is packed, last of all, to where `place` says. The job's `local_ranks` share this
// host's memory. `random_weights`: of the model's folder only config.json is read, its weights are
// drawn as by `ll-trainer init`. Errors name the key.
absl::StatusOr<Training> PrepareTraining(const JobSpec& given, int local_ranks,
                                         const PackPlace& place, bool random_weights = false);

// The training's last step where the spec counts epochs, and from which step on it attends to all:
// what follows from the rows and from global_batch_size. Errors: more steps than a spec may have.
absl::Status CountSteps(Training& training);

// What a row of that many tokens attends to at that 0-based step.
AttentionSpec AttentionOfRow(const Training& training, int64_t step, int64_t tokens);

}  // namespace ll
