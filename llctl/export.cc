#include "llctl/export.h"

#include <CLI/CLI.hpp>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/evaluations.h"
#include "llctl/job_ref.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"
#include "tracker/tfevents.h"

namespace ll {
namespace {

struct ExportOptions {
  std::vector<std::string> job_ids;
  std::string tensorboard;
};

using TagValues = std::vector<std::pair<std::string, double>>;

TagValues StepTags(const v1::StepRecord& step) {
  TagValues values = {{"train/loss", step.loss()},
                      {"train/grad_norm", step.grad_norm()},
                      {"train/learning_rate", step.learning_rate()},
                      {"train/tokens_per_second", step.tokens_per_second()},
                      {"train/step_seconds", step.step_seconds()},
                      {"train/peak_bytes", static_cast<double>(step.peak_bytes())}};
  if (step.has_mfu()) values.emplace_back("train/mfu", step.mfu());
  std::map<std::string, double> phases;  // in a fixed order
  for (const auto& [name, value] : step.phases().fields())
    phases[absl::StrCat("phase_seconds/", name)] = value.number_value();
  values.insert(values.end(), phases.begin(), phases.end());
  return values;
}

TagValues EvaluationTags(const google::protobuf::Struct& event) {
  std::map<std::string, double> values;
  for (const auto& [name, value] : event.fields()) {
    if (value.kind_case() == google::protobuf::Value::kNumberValue && name != "step")
      values[absl::StrCat("eval/", name)] = value.number_value();
  }
  return {values.begin(), values.end()};
}

// The job's event file: steps, and each evaluation behind the step it belongs to.
std::string EventFile(const v1::Job& job,
                      const std::vector<google::protobuf::Struct>& evaluations) {
  const absl::Time began = ToTime(job.submitted());
  std::string file = TfEventsHeader(began);
  std::map<int64_t, absl::Time> times;
  for (const v1::StepRecord& step : job.steps()) {
    times[step.step()] = ToTime(step.time());
    file += TfScalars(ToTime(step.time()), step.step(), StepTags(step));
  }
  for (const google::protobuf::Struct& event : evaluations) {
    const auto at = event.fields().find("step");
    const int64_t step =
        at == event.fields().end() ? 0 : static_cast<int64_t>(at->second.number_value());
    const auto time = times.find(step);
    file += TfScalars(time == times.end() ? began : time->second, step, EvaluationTags(event));
  }
  return file;
}

absl::StatusOr<std::string> ExportJob(const std::string& job_id, const std::string& folder,
                                      Client& client) {
  v1::GetRequest request;
  request.set_job_id(job_id);
  request.set_history(true);
  LL_ASSIGN_OR_RETURN(const v1::Job job, client.Call(client.jobs(), &v1::Jobs::Stub::Get, request));
  LL_ASSIGN_OR_RETURN(const auto evaluations, ReadEvaluations(job, client));
  if (job.steps().empty() && evaluations.empty()) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "job",
                       absl::StrCat(job_id, " has no steps yet"),
                       "llctl why JOB says what it waits for");
  }
  const std::string run = absl::StrCat(folder, "/", job.job_id());
  LL_RETURN_IF_ERROR(AsUsageError(MakeDirs(run)));
  // The same name every time: a second export replaces the first.
  const std::string file =
      absl::StrCat(run, "/", TfEventsFileName(ToTime(job.submitted()), "ll-export"));
  LL_RETURN_IF_ERROR(AsUsageError(WriteFileAtomic(file, EventFile(job, evaluations))));
  return file;
}

absl::StatusOr<int> RunExport(const ExportOptions& options, Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> ids, JobIdsOf(options.job_ids, *client));
  for (const std::string& job_id : ids) {
    LL_ASSIGN_OR_RETURN(const std::string file, ExportJob(job_id, options.tensorboard, *client));
    files.push_back({{"job_id", job_id}, {"file", file}});
  }
  Output& output = session.output();
  if (output.is_table() || output.format() == OutputFormat::kName) {
    for (const auto& file : files) output.stream() << file["file"].get<std::string>() << "\n";
  } else {
    output.PrintValue(files);
  }
  return kExitSuccess;
}

}  // namespace

void AddExportCommand(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<ExportOptions>();
  CLI::App* command =
      app.add_subcommand("export", "Write jobs' curves in the format of another tool.");
  command->add_option("JOB", options->job_ids, kJobsHelp)->required();
  command
      ->add_option("--tensorboard", options->tensorboard,
                   "Folder for TensorBoard event files, one run a job: tensorboard --logdir DIR.")
      ->required()
      ->type_name("DIR");
  command->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunExport(*options, session); };
  });
}

}  // namespace ll
