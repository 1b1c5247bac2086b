#include "worker/trainer/cli/generate_flags.h"

#include <unistd.h>

#include <cstdio>

#include "base/terminal_text.h"
#include "worker/trainer/cli/shared_flags.h"

namespace ll {

bool PrintText(absl::string_view text) {
  static const bool terminal = isatty(STDOUT_FILENO) != 0;
  const std::string shown = terminal ? Shown(text, /*lines=*/true) : std::string(text);
  std::fwrite(shown.data(), 1, shown.size(), stdout);
  return std::fflush(stdout) == 0;
}

void WarnToStderr(absl::string_view message) {
  std::fprintf(stderr, "ll-trainer: warning: %.*s\n", static_cast<int>(message.size()),
               message.data());
}

void AddGenerateFlags(CLI::App& command, GenerateFlags& flags) {
  ModelRequest& model = flags.model.model;
  SamplingOptions& sampling = flags.answer.generation.sampling;
  command
      .add_option("--model", model.model, "Hugging Face folder; default: what the adapter names")
      ->type_name("DIR");
  command.add_option("--adapter", model.adapter, "Adapter folder or checkpoint")->type_name("DIR");
  command
      .add_option("--tokenizer", flags.model.tokenizer,
                  "Folder or file of the tokenizer; default: the model folder's")
      ->type_name("PATH");
  command
      .add_option("--max-new-tokens", flags.answer.generation.max_new_tokens,
                  "Tokens that are generated at most")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, kMaxNewTokens));
  command
      .add_option("--temperature", sampling.temperature,
                  "0 takes the likeliest token; above, tokens are drawn, higher being bolder")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command.add_option("--top-k", sampling.top_k, "Draw from the k likeliest tokens; 0: from all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command
      .add_option("--top-p", sampling.top_p,
                  "Draw from the fewest tokens that have this probability together")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  command
      .add_option("--repetition-penalty", sampling.repetition_penalty,
                  "Above 1, tokens that occurred become less likely")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  AddSeed(command, sampling.seed, "Of the draws: the same seed, the same answer");
  command
      .add_option("--stop", flags.answer.stop_strings,
                  "A text that ends the answer and is not part of it; may be given several times")
      ->type_name("TEXT")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_flag("--ignore-eos", flags.answer.ignore_eos,
                   "Go on behind the model's end-of-sequence token");
  command.add_option("--precision", model.precision, "Compute type; auto is fp32 on a CPU")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}));
  command
      .add_option("--quantization", model.quantization,
                  "The base's linear weights in NF4 or not; default: as the folder keeps them and "
                  "as the adapter was trained")
      ->check(CLI::IsMember({"none", "nf4"}));
  command
      .add_option("--context-size", model.context_size,
                  "Context the positions are scaled to; default: as configured")
      ->check(CLI::PositiveNumber);
  command.add_option("--rope", model.rope, "How positions are scaled beyond the model's reach")
      ->capture_default_str()
      ->check(CLI::IsMember({"linear", "ntk", "dynamic", "yarn", "llama3", "none"}));
  command
      .add_option("--original-context-length", model.original_context_length,
                  "Overrides the original context in the model's config")
      ->check(CLI::PositiveNumber);
  command.add_flag("--strict", flags.model.strict,
                   "Refuse what goes beyond the trained context instead of warning");
  AddThreads(command, flags.threads, "CPU threads");
  flags.model.warn = WarnToStderr;
}

}  // namespace ll
