// llctl describe
#include <CLI/CLI.hpp>

#include "base/status_macros.h"
#include "llctl/describe_text.h"
#include "llctl/errors.h"
#include "llctl/evaluations.h"
#include "llctl/job_ref.h"
#include "llctl/session.h"

namespace ll {
namespace {

absl::StatusOr<int> RunDescribe(const std::string& job, Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(const std::string job_id, JobIdOf(job, *client));
  DescribedJob described;
  v1::GetRequest get;
  get.set_job_id(job_id);
  get.set_history(true);
  LL_ASSIGN_OR_RETURN(described.job, client->Call(client->jobs(), &v1::Jobs::Stub::Get, get));
  v1::WhyRequest why;
  why.set_job_id(job_id);
  LL_ASSIGN_OR_RETURN(const v1::WhyResponse answer,
                      client->Call(client->jobs(), &v1::Jobs::Stub::Why, why));
  described.why = answer.sentence();
  v1::CheckpointsRequest checkpoints;
  checkpoints.set_job_id(job_id);
  LL_ASSIGN_OR_RETURN(const v1::CheckpointsResponse there,
                      client->Call(client->jobs(), &v1::Jobs::Stub::Checkpoints, checkpoints));
  described.checkpoints.assign(there.checkpoints().begin(), there.checkpoints().end());
  LL_ASSIGN_OR_RETURN(described.evaluations, ReadEvaluations(described.job, *client));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << job_id << "\n";
  } else if (output.is_table()) {
    output.stream() << DescribeText(described, session.now(),
                                    output.terminal() ? session.terminal_size().columns : 0,
                                    output.color());
  } else {
    output.PrintValue(DescribeJson(described, session.now()));
  }
  return kExitSuccess;
}

}  // namespace

void AddDescribeCommand(CLI::App& app, Action& chosen) {
  auto job_id = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "describe",
      "Everything of one job on a page: conditions, forecast and actual, ranks, attempts, "
      "evaluations, checkpoints, events.");
  command->add_option("JOB", *job_id, kJobHelp)->required();
  command->callback([job_id, &chosen] {
    chosen = [job_id](Session& session) { return RunDescribe(*job_id, session); };
  });
}

}  // namespace ll
