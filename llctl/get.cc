// llctl get
#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/job_ref.h"
#include "llctl/plan_text.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"

namespace ll {
namespace {

struct GetOptions {
  std::string job_id;
  bool history = false;
};

std::string TimeText(const google::protobuf::Timestamp& time, absl::Time now) {
  if (time.seconds() == 0) return "";
  return absl::StrCat(Rfc3339(ToTime(time)), " (", AgeText(time, now), " ago)");
}

std::string ProgressText(const v1::Progress& progress) {
  if (progress.step() == 0) return "";
  std::string text = absl::StrCat("step ", StepText(progress), ", loss ", LossText(progress));
  if (progress.tokens_per_second() > 0) {
    absl::StrAppend(&text, ", ", SpeedText(progress.tokens_per_second()), " tokens/s");
  }
  if (progress.peak_bytes() > 0)
    absl::StrAppend(&text, ", ", HumanBytes(progress.peak_bytes()), " peak");
  if (const auto eta = Eta(progress)) absl::StrAppend(&text, ", ETA ", HumanDuration(*eta));
  return text;
}

std::string CheckpointText(const v1::Job& job) {
  if (!job.has_newest_checkpoint()) return "";
  const v1::Checkpoint& checkpoint = job.newest_checkpoint();
  std::string text = absl::StrCat("step ", checkpoint.step(), ", ", checkpoint.path());
  if (!checkpoint.worker().empty()) absl::StrAppend(&text, " on ", checkpoint.worker());
  return text;
}

void PrintJob(const v1::Job& job, Session& session) {
  const absl::Time now = session.now();
  Output& output = session.output();
  std::vector<std::pair<std::string, std::string>> fields = {
      {"job", job.job_id()},
      {"name", job.spec().name()},
      {"state", absl::StrCat(output.State(job.state()),
                             job.headless() ? " (an agent is out of contact)" : "")},
      {"reason", job.reason()},
      {"user", job.user()},
      {"submitted", TimeText(job.submitted(), now)},
      {"started", TimeText(job.started(), now)},
      {"finished", TimeText(job.finished(), now)},
      {"attempt", job.epoch() == 0 ? "" : absl::StrCat(job.epoch(), ", retries ", job.retries())},
      {"gpus", SizeText(job)},
      {"workers", absl::StrJoin(job.workers(), ", ")},
      {"progress", ProgressText(job.progress())},
      {"forecast", ForecastText(job.forecast())},
      {"actual", AgainstActualText(job)},
      {"checkpoint", CheckpointText(job)},
      {"result", job.has_result() ? JsonToYaml(ProtoToJson(job.result())) : ""},
      {"spec", SpecText(job.has_resolved_spec() ? job.resolved_spec() : job.spec())},
  };
  std::erase_if(fields, [](const auto& field) { return field.second.empty(); });
  output.PrintFields(fields);
}

void PrintHistory(const v1::Job& job, Output& output) {
  output.stream() << "\n";
  Table transitions({"TIME", "STATE", "ATTEMPT", "REASON"});
  for (const v1::Transition& t : job.history()) {
    transitions.Add({Rfc3339(ToTime(t.time())), v1::JobState_Name(t.state()),
                     absl::StrCat(t.epoch()), t.reason()});
  }
  output.PrintTable(transitions);
  if (job.steps().empty()) return;
  output.stream() << "\n";
  Table steps(
      {"STEP", "ATTEMPT", "LOSS", "GRAD NORM", "LEARNING RATE", "TOKENS", "SECONDS", "TOKENS/S"});
  for (const v1::StepRecord& s : job.steps()) {
    steps.Add({absl::StrCat(s.step()), absl::StrCat(s.epoch()), absl::StrCat(s.loss()),
               absl::StrCat(s.grad_norm()), absl::StrCat(s.learning_rate()),
               absl::StrCat(s.tokens()), absl::StrCat(s.step_seconds()),
               SpeedText(s.tokens_per_second())});
  }
  output.PrintTable(steps);
}

absl::StatusOr<int> RunGet(const GetOptions& options, Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  v1::GetRequest request;
  LL_ASSIGN_OR_RETURN(*request.mutable_job_id(), JobIdOf(options.job_id, *client));
  request.set_history(options.history);
  LL_ASSIGN_OR_RETURN(v1::Job job, client->Call(client->jobs(), &v1::Jobs::Stub::Get, request));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << job.job_id() << "\n";
  } else if (output.is_table()) {
    PrintJob(job, session);
    if (options.history) PrintHistory(job, output);
  } else {
    output.PrintValue(ProtoToJson(job));
  }
  return kExitSuccess;
}

}  // namespace

void AddGetCommand(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<GetOptions>();
  CLI::App* command = app.add_subcommand("get", "Show everything about one job.");
  command->add_option("JOB", options->job_id, kJobHelp)->required();
  command->add_flag("--history", options->history,
                    "Also every change of state and every step's record.");
  command->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunGet(*options, session); };
  });
}

}  // namespace ll
