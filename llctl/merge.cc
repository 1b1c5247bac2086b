// llctl merge: submits a job that writes base and adapter as one folder.
#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/plan.h"
#include "llctl/progress.h"
#include "llctl/proto_json.h"
#include "llctl/result.h"
#include "llctl/session.h"

namespace ll {
namespace {

struct MergeOptions {
  std::map<std::string, std::string> keys;  // the flags by the spec key they set
  std::string job, request_id;
  bool watch = false;
};

absl::StatusOr<v1::JobSpec> MakeSpec(const MergeOptions& options) {
  JobSpec spec;
  for (const auto& [key, text] : options.keys) LL_RETURN_IF_ERROR(SetField(spec, key, text));
  if (!options.job.empty()) spec.job = options.job;
  if (!spec.job && !spec.adapter) {
    return FieldStatus(absl::StatusCode::kInvalidArgument, "job",
                       "expected JOB or --adapter DIR, found neither");
  }
  spec.kind = "merge";
  MakePathsAbsolute(spec);
  LL_RETURN_IF_ERROR(Validate(spec));
  return SpecToProto(spec);
}

absl::StatusOr<int> RunMerge(const MergeOptions& options, Session& session) {
  if (options.watch) session.environment().interrupt.Arm();
  LL_ASSIGN_OR_RETURN(v1::JobSpec spec, MakeSpec(options));
  const std::string request_id =
      options.request_id.empty() ? NewRequestId(session.environment().random) : options.request_id;
  LL_ASSIGN_OR_RETURN(v1::SubmitResponse response, SubmitJob(spec, request_id, session));
  const v1::Job& job = response.job();
  if (options.watch) {
    session.talk() << "llctl: merging as " << job.job_id() << std::endl;
    return AwaitResult(job.job_id(), "merge", session, [&session](const v1::Job& merged) {
      PrintJobResult(merged, session);
      return absl::OkStatus();
    });
  }
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << job.job_id() << "\n";
  } else if (output.is_table()) {
    output.stream() << JobLine(job, output) << "\n";
  } else {
    output.PrintValue(ProtoToJson(job));
  }
  return kExitSuccess;
}

}  // namespace

void AddMergeCommand(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<MergeOptions>();
  CLI::App* command = app.add_subcommand(
      "merge", "Merge a job's adapter into its base: one folder that transformers loads.");
  const auto add = [&](const char* flag, const char* key, const char* type, const char* help) {
    AddKeyFlag(*command, options->keys, flag, key, type, help);
  };
  command->add_option("JOB", options->job, "Job whose newest checkpoint is merged.");
  add("--out", "merge_out", "NAME|DIR",
      "Name in the merge job's folder, or a path on the workers. Default: merged.");
  add("--model", "model", "M", "Base model. Default: the job's, or what the adapter names.");
  add("--adapter", "adapter", "DIR", "Adapter folder on the workers, instead of JOB.");
  add("--dtype", "merge_dtype", "bf16|fp16|fp32", "Type of the weights. Default: the base's.");
  add("--onto", "merge_onto", "16bit|nf4",
      "Of a quantised base: its original weights, or its values in NF4. Default: as it is kept.");
  add("--quantization", "quantization", "none|nf4", "Of the folder. Default: none.");
  add("--verify", "eval_data", "F|NAME",
      "Token file to measure perplexity and KL of adapter and merged model on.");
  add("--name", "name", "TEXT", "Free text for people.");
  command->add_flag("--watch", options->watch, "Wait for the end and print the result.");
  command->add_option("--request-id", options->request_id, "As for submit.")->type_name("ID");
  command->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunMerge(*options, session); };
  });
}

}  // namespace ll
