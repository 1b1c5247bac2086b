// llctl checkpoints
#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/job_ref.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"

namespace ll {
namespace {

std::string WhereText(const v1::CheckpointRecord& checkpoint) {
  if (checkpoint.removed()) return checkpoint.copy_uri();
  if (checkpoint.copy_uri().empty()) return checkpoint.path();
  return absl::StrCat(checkpoint.path(), ", ", checkpoint.copy_uri());
}

absl::StatusOr<int> RunCheckpoints(const std::string& job, Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  v1::CheckpointsRequest request;
  LL_ASSIGN_OR_RETURN(*request.mutable_job_id(), JobIdOf(job, *client));
  LL_ASSIGN_OR_RETURN(v1::CheckpointsResponse response,
                      client->Call(client->jobs(), &v1::Jobs::Stub::Checkpoints, request));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    for (const v1::CheckpointRecord& c : response.checkpoints())
      output.stream() << (c.removed() ? c.copy_uri() : c.path()) << "\n";
    return kExitSuccess;
  }
  if (!output.is_table()) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const v1::CheckpointRecord& c : response.checkpoints()) list.push_back(ProtoToJson(c));
    output.PrintValue(list);
    return kExitSuccess;
  }
  Table table({"STEP", "ATTEMPT", "AGE", "SIZE", "LOSS", "KEPT AS", "WHERE"});
  for (const v1::CheckpointRecord& c : response.checkpoints()) {
    table.Add({absl::StrCat(c.step()), absl::StrCat(c.epoch()), AgeText(c.written(), session.now()),
               HumanBytes(c.size_bytes()), c.has_loss() ? absl::StrFormat("%.4f", c.loss()) : "",
               c.kept(), WhereText(c)});
  }
  output.PrintTable(table);
  return kExitSuccess;
}

}  // namespace

void AddCheckpointsCommand(CLI::App& app, Action& chosen) {
  auto job_id = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("checkpoints", "List a job's checkpoints and where they are.");
  command->add_option("JOB", *job_id, kJobHelp)->required();
  command->callback([job_id, &chosen] {
    chosen = [job_id](Session& session) { return RunCheckpoints(*job_id, session); };
  });
}

}  // namespace ll
