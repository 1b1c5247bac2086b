#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/report/eval_report.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/cli/shared_flags.h"
#include "worker/trainer/eval/eval_model.h"
#include "worker/trainer/rank.h"

namespace ll {
namespace {

struct EvalFlags {
  EvalRequest request;
  std::string mode = "official", attention = "full", output = "json", plot;
  std::optional<int64_t> num_tests;
  uint64_t seed = 0;
  int threads = 0;
};

void FillPrompts(const EvalFlags& flags, EvalRequest& request) {
  const bool grid = request.task == "passkey" && !request.passkey.lengths.empty();
  request.passkey.num_tests = request.topics.num_tests = flags.num_tests.value_or(grid ? 1 : 10);
  request.passkey.seed = request.topics.seed = flags.seed;
}

absl::Status Run(EvalFlags& flags) {
  FillPrompts(flags, flags.request);
  flags.request.perplexity.mode =
      flags.mode == "exact" ? WindowMode::kExact : WindowMode::kOfficial;
  const auto comm = MakeSingleComm();
  EventSink events(RealClock(), 0, STDERR_FILENO);  // the result alone goes to standard output
  LL_ASSIGN_OR_RETURN(const nlohmann::ordered_json result, Evaluate(flags.request, *comm, events));
  std::printf("%s\n", flags.output == "table" ? ReportText(ReportOf(result)).c_str()
                                              : result.dump().c_str());
  if (flags.plot.empty()) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(const std::string svg, PasskeySvg(result));
  return WriteFileAtomic(flags.plot, svg);
}

void AddModelFlags(CLI::App& command, EvalFlags& flags) {
  EvalRequest& request = flags.request;
  command
      .add_option("--model", request.model, "Hugging Face folder; default: what the adapter names")
      ->type_name("DIR");
  command.add_option("--adapter", request.adapter, "Adapter folder or checkpoint")
      ->type_name("DIR");
  command
      .add_option("--context-size", request.context_size,
                  "Context the positions are scaled to; default: --seq-len, or none beyond the "
                  "model's own")
      ->check(CLI::PositiveNumber);
  command.add_option("--rope", request.rope, "How positions are scaled beyond the model's reach")
      ->capture_default_str()
      ->check(CLI::IsMember({"linear", "ntk", "dynamic", "yarn", "llama3", "none"}));
  command
      .add_option("--original-context-length", request.original_context_length,
                  "Overrides the original context in the model's config")
      ->check(CLI::PositiveNumber);
  command.add_option("--precision", request.precision, "Compute type; auto is fp32 on a CPU")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}));
  command
      .add_option("--quantization", request.quantization,
                  "The base's linear weights in NF4 or not; default: as the folder keeps them and "
                  "as the adapter was trained")
      ->check(CLI::IsMember({"none", "nf4"}));
  command.add_option("--attention", flags.attention, "Always full: S2-Attn is for training")
      ->capture_default_str()
      ->check(CLI::IsMember({"full"}));
  AddThreads(command, flags.threads, "CPU threads");
  command.add_option("-o,--output", flags.output, "How the result is printed")
      ->capture_default_str()
      ->check(CLI::IsMember({"json", "table"}));
}

void AddPromptFlags(CLI::App& command, EvalFlags& flags, const char* tests_help) {
  command
      .add_option("--tokenizer", flags.request.tokenizer,
                  "Tokenizer folder or file; default: the model's")
      ->type_name("PATH");
  command.add_option("--num-tests", flags.num_tests, tests_help)->check(CLI::Range(1, 10'000));
  AddSeed(command, flags.seed, "Of the first prompt; the others follow");
}

void AddPerplexityFlags(CLI::App& command, EvalFlags& flags) {
  PerplexityOptions& perplexity = flags.request.perplexity;
  command.add_option("--data", flags.request.data, "Token file")->required()->type_name("FILE");
  command.add_option("--seq-len", perplexity.seq_len, "Tokens per window")
      ->capture_default_str()
      ->check(CLI::Range(2, 16'000'000));
  command.add_option("--sliding-window", perplexity.sliding_window, "Tokens between window starts")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command
      .add_option("--mode", flags.mode,
                  "official: LongLoRA's mean over whole windows, the last one dropped; exact: each "
                  "token once, in the window that shows it the most of what is before it")
      ->capture_default_str()
      ->check(CLI::IsMember({"official", "exact"}));
  command
      .add_option("--position-buckets", perplexity.position_buckets,
                  "Parts of the window that by_position tells apart")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000));
  command.add_flag("--compare-base", flags.request.compare_base,
                   "Also at the base model's own context, beside the base: what short texts lost");
}

void AddPasskeyFlags(CLI::App& command, EvalFlags& flags) {
  PasskeyOptions& passkey = flags.request.passkey;
  CLI::Option* lengths =
      command
          .add_option("--lengths", passkey.lengths,
                      "Prompt lengths of a grid, in tokens; default: LongLoRA's protocol")
          ->delimiter(',')
          ->check(CLI::Range(1, 16'000'000));
  command.add_option("--depths", passkey.depths, "Places of the key, evenly from start to end")
      ->needs(lengths)
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command.add_option("--max-tokens", passkey.max_tokens, "Longest prompt, about")
      ->excludes(lengths)
      ->capture_default_str()
      ->check(CLI::Range(1, 16'000'000));
  command.add_option("--interval", passkey.interval, "Tokens, about, between lengths")
      ->excludes(lengths)
      ->capture_default_str()
      ->check(CLI::Range(1, 16'000'000));
  command.add_option("--plot", flags.plot, "Writes a heat map of the accuracies, an SVG file")
      ->type_name("FILE");
}

void AddTopicsFlags(CLI::App& command, EvalFlags& flags) {
  command
      .add_option("--lengths", flags.request.topics.lengths, "Lengths of the dialogues, in tokens")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1, 16'000'000));
  command
      .add_option(
          "--prompt", flags.request.topic_prompt,
          "chat: the folder's chat template; plain: a transcript; auto: chat where there is "
          "a template")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "chat", "plain"}));
}

}  // namespace

void AddEval(CLI::App& program, Command& run) {
  CLI::App* eval = program.add_subcommand("eval", "Measures a model");
  eval->require_subcommand(1);
  const auto add = [&](const std::string& task, const std::string& help) {
    auto flags = std::make_shared<EvalFlags>();
    flags->request.task = task;
    CLI::App* command = eval->add_subcommand(task, help);
    command->callback([flags, &run] {
      run = [flags] {
        SetThreads(flags->threads, 1);
        const absl::Status status = Run(*flags);
        return status.ok() ? 0 : ReportToStderr(status);
      };
    });
    AddModelFlags(*command, *flags);
    return std::pair<CLI::App&, EvalFlags&>(*command, *flags);
  };
  const auto [perplexity, perplexity_flags] =
      add("perplexity", "Perplexity on sliding windows of a token file");
  AddPerplexityFlags(perplexity, perplexity_flags);
  const auto [passkey, passkey_flags] =
      add("passkey", "Whether a number hidden in a long prompt is found again");
  AddPromptFlags(passkey, passkey_flags,
                 "Prompts a length, or a cell of a grid; default: 10, in a grid 1");
  AddPasskeyFlags(passkey, passkey_flags);
  const auto [topics, topics_flags] =
      add("topics", "Whether the first topic of a long conversation is remembered");
  AddPromptFlags(topics, topics_flags, "Dialogues a length; default: 10");
  AddTopicsFlags(topics, topics_flags);
}

}  // namespace ll
