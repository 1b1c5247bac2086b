#include <unistd.h>

#include <cstdio>
#include <memory>

#include "base/clock.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/eval/eval_model.h"
#include "worker/trainer/rank.h"

namespace ll {
namespace {

struct EvalFlags {
  EvalRequest request;
  std::string mode = "official", attention = "full";
  int threads = 0;
};

int Execute(EvalFlags& flags) {
  SetThreads(flags.threads, 1);
  flags.request.perplexity.mode =
      flags.mode == "exact" ? WindowMode::kExact : WindowMode::kOfficial;
  const auto comm = MakeSingleComm();
  EventSink events(RealClock(), 0, STDERR_FILENO);  // the result alone goes to standard output
  const auto result = EvaluatePerplexity(flags.request, *comm, events);
  if (!result.ok()) return ReportToStderr(result.status());
  std::printf("%s\n", ToJson(*result).dump().c_str());
  return 0;
}

}  // namespace

void AddEval(CLI::App& program, Command& run) {
  auto flags = std::make_shared<EvalFlags>();
  EvalRequest& request = flags->request;
  request.perplexity.seq_len = 2048;
  CLI::App* eval = program.add_subcommand("eval", "Measures a model");
  eval->require_subcommand(1);
  CLI::App* command =
      eval->add_subcommand("perplexity", "Perplexity on sliding windows of a token file, as JSON");
  command
      ->add_option("--model", request.model, "Hugging Face folder; default: what the adapter names")
      ->type_name("DIR");
  command->add_option("--adapter", request.adapter, "Adapter folder or checkpoint")
      ->type_name("DIR");
  command->add_option("--data", request.data, "Token file")->required()->type_name("FILE");
  command->add_option("--seq-len", request.perplexity.seq_len, "Tokens per window")
      ->capture_default_str()
      ->check(CLI::Range(2, 16'000'000));
  command
      ->add_option("--context-size", request.context_size,
                   "Context the positions are scaled to; default: --seq-len")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--sliding-window", request.perplexity.sliding_window,
                   "Tokens between window starts")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--mode", flags->mode,
                   "official: the last window is dropped, as LongLoRA does; exact: it is kept")
      ->capture_default_str()
      ->check(CLI::IsMember({"official", "exact"}));
  command->add_option("--precision", request.precision, "Compute type; auto is fp32 on a CPU")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}));
  command
      ->add_option("--quantization", request.quantization,
                   "The base's linear weights in NF4 or not; default: as the folder keeps them and "
                   "as the adapter was trained")
      ->check(CLI::IsMember({"none", "nf4"}));
  command->add_option("--attention", flags->attention, "Always full: S2-Attn is for training")
      ->capture_default_str()
      ->check(CLI::IsMember({"full"}));
  command->add_option("--rope", request.rope, "How positions are scaled beyond the model's reach")
      ->capture_default_str()
      ->check(CLI::IsMember({"linear", "ntk", "dynamic", "yarn", "llama3", "none"}));
  command
      ->add_option("--original-context-length", request.original_context_length,
                   "Overrides the original context in the model's config")
      ->check(CLI::PositiveNumber);
  command->add_option("--threads", flags->threads, "CPU threads");
  command->callback([flags, &run] { run = [flags] { return Execute(*flags); }; });
}

}  // namespace ll
