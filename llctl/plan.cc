// llctl plan: what a job would become and need, without submitting it.
#include "llctl/plan.h"

#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/proto_json.h"

namespace ll {

absl::StatusOr<v1::JobSpec> BuildSpec(const SpecFlags& flags, Session& session) {
  std::vector<std::string> notes;
  LL_ASSIGN_OR_RETURN(JobSpec spec, flags.Build(&notes));
  for (const std::string& note : notes) session.talk() << "llctl: note: " << note << "\n";
  return SpecToProto(spec);
}

absl::StatusOr<int> PlanJob(const v1::JobSpec& spec, Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  v1::SubmitRequest request;
  *request.mutable_spec() = spec;
  request.set_dry_run(true);
  LL_ASSIGN_OR_RETURN(v1::SubmitResponse response,
                      client->Call(client->jobs(), &v1::Jobs::Stub::Submit, request));
  if (response.members_size() > 0) {
    PrintPlans(response.members(), session);
    return kExitSuccess;
  }
  const v1::Job& job = response.job();
  Output& output = session.output();
  if (!output.is_table()) {
    output.PrintValue(ProtoToJson(job));
    return kExitSuccess;
  }
  output.PrintFields(
      {{"forecast", ForecastText(job.forecast())}, {"spec", SpecText(job.resolved_spec())}});
  return kExitSuccess;
}

void PrintPlans(const google::protobuf::RepeatedPtrField<v1::Job>& jobs, Session& session) {
  Output& output = session.output();
  if (!output.is_table()) {
    nlohmann::ordered_json array = nlohmann::ordered_json::array();
    for (const v1::Job& job : jobs) array.push_back(ProtoToJson(job));
    return output.PrintValue(array);
  }
  Table table({"NAME", "KIND", "STEPS", "FORECAST"});
  for (const v1::Job& job : jobs) {
    const v1::JobSpec& spec = job.resolved_spec();
    table.Add({spec.name(), spec.kind(), spec.has_max_steps() ? absl::StrCat(spec.max_steps()) : "",
               ForecastText(job.forecast())});
  }
  output.PrintTable(table);
}

void AddPlanCommand(CLI::App& app, Action& chosen) {
  auto flags = std::make_shared<SpecFlags>();
  CLI::App* command = app.add_subcommand(
      "plan", "Show what a job would become and need; nothing is stored. Flags as for submit.");
  flags->AddTo(*command);
  command->callback([flags, &chosen] {
    chosen = [flags](Session& session) -> absl::StatusOr<int> {
      LL_ASSIGN_OR_RETURN(v1::JobSpec spec, BuildSpec(*flags, session));
      return PlanJob(spec, session);
    };
  });
}

}  // namespace ll
