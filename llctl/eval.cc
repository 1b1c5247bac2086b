// llctl eval: submits an evaluation, waits for it, prints its result.
#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/plan.h"
#include "llctl/progress.h"
#include "llctl/proto_json.h"
#include "llctl/result.h"
#include "llctl/session.h"
#include "model/report/eval_report.h"

namespace ll {
namespace {

// The flags by the spec key they set.
struct EvalOptions {
  std::string task;
  std::map<std::string, std::string> keys;
  std::string request_id;
  std::string plot;  // passkey: where the heat map goes
};

absl::StatusOr<v1::JobSpec> MakeSpec(const EvalOptions& options, Session& session) {
  JobSpec spec;
  for (const auto& [key, text] : options.keys) LL_RETURN_IF_ERROR(SetField(spec, key, text));
  if (!spec.job && !spec.model) {
    return FieldStatus(absl::StatusCode::kInvalidArgument, "job",
                       "expected --job JOB or --model M, found neither");
  }
  spec.kind = "eval";
  spec.eval_task = options.task;
  MakePathsAbsolute(spec);
  LL_RETURN_IF_ERROR(Validate(spec));
  return SpecToProto(spec);
}

absl::Status PrintResult(const v1::Job& job, const EvalOptions& options, Session& session) {
  PrintJobResult(job, session);
  if (options.plot.empty()) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(const std::string svg, PasskeySvg(ProtoToJson(job.result())));
  return WriteFileAtomic(options.plot, svg);
}

absl::StatusOr<int> RunEval(const EvalOptions& options, Session& session) {
  session.environment().interrupt.Arm();
  LL_ASSIGN_OR_RETURN(v1::JobSpec spec, MakeSpec(options, session));
  const std::string request_id =
      options.request_id.empty() ? NewRequestId(session.environment().random) : options.request_id;
  LL_ASSIGN_OR_RETURN(v1::SubmitResponse response, SubmitJob(spec, request_id, session));
  const std::string job_id = response.job().job_id();
  session.talk() << "llctl: evaluating as " << job_id << std::endl;

  return AwaitResult(job_id, "evaluation", session,
                     [&](const v1::Job& job) { return PrintResult(job, options, session); });
}

// One task's subcommand while its flags are added.
class TaskCommand {
 public:
  TaskCommand(CLI::App& eval, const std::string& task, const std::string& help, Action& chosen)
      : options_(std::make_shared<EvalOptions>()), command_(eval.add_subcommand(task, help)) {
    options_->task = task;
    command_->callback([options = options_, &chosen] {
      chosen = [options](Session& session) { return RunEval(*options, session); };
    });
  }

  void Add(const char* flag, const char* key, const char* type, const char* help) {
    AddKeyFlag(*command_, options_->keys, flag, key, type, help);
  }
  void AddSwitch(const char* flag, const char* key, const char* help) {
    command_->add_flag_callback(
        flag, [options = options_, key = std::string(key)] { options->keys[key] = "true"; }, help);
  }
  CLI::App& command() { return *command_; }
  EvalOptions& options() { return *options_; }

 private:
  std::shared_ptr<EvalOptions> options_;
  CLI::App* command_;
};

void AddModelFlags(TaskCommand& task, const char* context_help) {
  task.Add("--job", "job", "JOB", "Evaluate this job's newest checkpoint.");
  task.Add("--model", "model", "M", "Model to evaluate. Default: the job's.");
  task.Add("--adapter", "adapter", "DIR", "Adapter folder on the workers.");
  task.Add("--context-size", "eval_context_size", "N", context_help);
}

void AddServiceFlags(TaskCommand& task) {
  task.Add("--precision", "precision", "bf16|fp32",
           "Compute type. Default: fp32 on CPUs, the model's on GPUs.");
  task.Add("--gpus", "gpus", "N", "Ranks. Default: 1.");
  task.Add("--gate", "gate", "COND,...",
           "Conditions that the result must meet, for example passkey>=0.9; else the job fails.");
  task.Add("--name", "name", "TEXT", "Free text for people.");
  task.command()
      .add_option("--request-id", task.options().request_id, "As for submit.")
      ->type_name("ID");
}

void AddPromptFlags(TaskCommand& task, const char* tests_help) {
  task.Add("--rope", "rope", "TYPE",
           "How positions are scaled to --context-size. Default: linear.");
  task.Add("--tokenizer", "tokenizer", "PATH", "On the workers. Default: the model's.");
  task.Add("--num-tests", "eval_num_tests", "N", tests_help);
  task.Add("--seed", "seed", "N", "Of the first prompt. Default: 0.");
}

void AddPerplexity(CLI::App& eval, Action& chosen) {
  TaskCommand task(eval, "perplexity", "Perplexity on a token file, with full attention.", chosen);
  AddModelFlags(
      task, "Context the positions are scaled to. Default: the job's or --seq-len, the larger.");
  task.Add("--data", "eval_data", "F|NAME",
           "Token file, or a registered name. Default: the cluster's data.");
  task.Add("--seq-len", "eval_seq_len", "N",
           "Tokens per window. Default: the job's context, else 2048.");
  task.Add("--sliding-window", "eval_sliding_window", "N",
           "Tokens between window starts. Default: 256.");
  task.Add("--mode", "eval_mode", "official|exact",
           "official drops the last window as LongLoRA does; exact counts each token once. "
           "Default: official.");
  task.AddSwitch("--compare-base", "eval_compare_base",
                 "Also at the base model's own context, beside the base.");
  AddServiceFlags(task);
}

void AddPasskey(CLI::App& eval, Action& chosen) {
  TaskCommand task(eval, "passkey", "Whether a number hidden in a long prompt is found again.",
                   chosen);
  AddModelFlags(task, "Context the positions are scaled to. Default: the job's, else the model's.");
  task.Add("--lengths", "passkey_lengths", "N,...",
           "Prompt lengths of a grid. Default: LongLoRA's protocol.");
  task.Add("--depths", "passkey_depths", "N",
           "Places of the key in a grid, evenly from start to end. Default: 5.");
  task.Add("--max-tokens", "passkey_max_tokens", "N",
           "Longest prompt, about, without --lengths. Default: 32000.");
  task.Add("--interval", "passkey_interval", "N", "Tokens, about, between lengths. Default: 1000.");
  AddPromptFlags(task, "Prompts a length, or a cell of a grid. Default: 10; in a grid 1.");
  task.command()
      .add_option("--plot", task.options().plot, "Writes a heat map here, an SVG file.")
      ->type_name("FILE");
  AddServiceFlags(task);
}

void AddTopics(CLI::App& eval, Action& chosen) {
  TaskCommand task(eval, "topics", "Whether the first topic of a long conversation is remembered.",
                   chosen);
  AddModelFlags(task, "Context the positions are scaled to. Default: the job's, else the model's.");
  task.Add("--lengths", "topic_lengths", "N,...",
           "Lengths of the dialogues. Default: 3000,6000,10000,13000,16000.");
  task.Add(
      "--prompt", "topic_prompt", "auto|chat|plain",
      "In the model's chat template or as a plain transcript. Default: by the template if any.");
  AddPromptFlags(task, "Dialogues a length. Default: 10.");
  AddServiceFlags(task);
}

}  // namespace

void AddEvalCommand(CLI::App& app, Action& chosen) {
  CLI::App* eval =
      app.add_subcommand("eval", "Evaluate a model or a job's result, and wait for it.");
  eval->require_subcommand(1);
  AddPerplexity(*eval, chosen);
  AddPasskey(*eval, chosen);
  AddTopics(*eval, chosen);
}

}  // namespace ll
