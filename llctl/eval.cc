// llctl eval: submits an evaluation, waits for it, prints its result.
#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/plan.h"
#include "llctl/progress.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"

namespace ll {
namespace {

// The flags by the spec key they set.
struct EvalOptions {
  std::map<std::string, std::string> keys;
  std::string request_id;
};

absl::StatusOr<v1::JobSpec> MakeSpec(const EvalOptions& options, Session& session) {
  JobSpec spec;
  for (const auto& [key, text] : options.keys) LL_RETURN_IF_ERROR(SetField(spec, key, text));
  if (!spec.job && !spec.model) {
    return FieldStatus(absl::StatusCode::kInvalidArgument, "job",
                       "expected --job JOB or --model M, found neither");
  }
  spec.kind = "eval";
  spec.eval_task = "perplexity";
  MakePathsAbsolute(spec);
  LL_RETURN_IF_ERROR(Validate(spec));
  return SpecToProto(spec);
}

void PrintResult(const v1::Job& job, Session& session) {
  Output& output = session.output();
  nlohmann::ordered_json value = ProtoToJson(job.result());
  if (output.format() == OutputFormat::kName) {
    output.stream() << job.job_id() << "\n";
  } else if (output.is_table()) {
    std::vector<std::pair<std::string, std::string>> fields = {{"job", job.job_id()}};
    for (const auto& [key, item] : value.items()) {
      if (!item.is_structured())
        fields.emplace_back(key, item.is_string() ? item.get<std::string>() : item.dump());
    }
    output.PrintFields(fields);
  } else {
    value["job_id"] = job.job_id();
    output.PrintValue(value);
  }
}

absl::StatusOr<int> RunEval(const EvalOptions& options, Session& session) {
  session.environment().interrupt.Arm();
  LL_ASSIGN_OR_RETURN(v1::JobSpec spec, MakeSpec(options, session));
  const std::string request_id =
      options.request_id.empty() ? NewRequestId(session.environment().random) : options.request_id;
  LL_ASSIGN_OR_RETURN(v1::SubmitResponse response, SubmitJob(spec, request_id, session));
  const std::string job_id = response.job().job_id();
  session.talk() << "llctl: evaluating as " << job_id << std::endl;

  ProgressPrinter contact_only(session, /*quiet=*/true);
  LL_ASSIGN_OR_RETURN(Followed followed, FollowJob(session, job_id, /*from_step=*/0, contact_only));
  if (followed.detached) {
    session.talk() << "llctl: detached; the evaluation goes on (llctl get " << job_id << ")\n";
    return kExitDetached;
  }
  if (followed.job.state() != v1::SUCCEEDED) {
    session.talk() << "llctl: " << JobLine(followed.job, session.output()) << "\n";
    return ExitCodeOf(followed.job.state());
  }
  PrintResult(followed.job, session);
  return kExitSuccess;
}

void AddPerplexity(CLI::App& eval, Action& chosen) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* command =
      eval.add_subcommand("perplexity", "Perplexity on a token file, with full attention.");
  const auto add = [&](const char* flag, const char* key, const char* type, const char* help) {
    command
        ->add_option_function<std::string>(
            flag,
            [options, key = std::string(key)](const std::string& text) {
              options->keys[key] = text;
            },
            help)
        ->type_name(type);
  };
  add("--job", "job", "JOB", "Evaluate this job's newest checkpoint.");
  add("--model", "model", "M", "Model to evaluate. Default: the job's.");
  add("--adapter", "adapter", "DIR", "Adapter folder on the workers.");
  add("--data", "eval_data", "F|NAME",
      "Token file, or a registered name. Default: the cluster's data.");
  add("--seq-len", "eval_seq_len", "N",
      "Tokens per window. Default: the job's context, else 2048.");
  add("--context-size", "eval_context_size", "N",
      "Context the positions are scaled to. Default: the job's or --seq-len, the larger.");
  add("--sliding-window", "eval_sliding_window", "N",
      "Tokens between window starts. Default: 256.");
  add("--mode", "eval_mode", "official|exact",
      "official drops the last window as LongLoRA does. Default: official.");
  add("--precision", "precision", "bf16|fp32",
      "Compute type. Default: fp32 on CPUs, the model's on GPUs.");
  add("--gpus", "gpus", "N", "Ranks. Default: 1.");
  add("--name", "name", "TEXT", "Free text for people.");
  command->add_option("--request-id", options->request_id, "As for submit.")->type_name("ID");
  command->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunEval(*options, session); };
  });
}

}  // namespace

void AddEvalCommand(CLI::App& app, Action& chosen) {
  CLI::App* eval =
      app.add_subcommand("eval", "Evaluate a model or a job's result, and wait for it.");
  eval->require_subcommand(1);
  AddPerplexity(*eval, chosen);
}

}  // namespace ll
