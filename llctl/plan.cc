// llctl plan: what a job would become and need, without submitting it.
#include "llctl/plan.h"

#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/plan_local.h"
#include "llctl/plan_text.h"
#include "llctl/proto_json.h"

namespace ll {

absl::StatusOr<v1::JobSpec> BuildSpec(const SpecFlags& flags, Session& session) {
  std::vector<std::string> notes;
  LL_ASSIGN_OR_RETURN(JobSpec spec, flags.Build(&notes));
  for (const std::string& note : notes) session.talk() << "llctl: note: " << note << "\n";
  return SpecToProto(spec);
}

namespace {

void PrintPlan(const v1::Job& job, Session& session) {
  Output& output = session.output();
  if (!output.is_table()) return output.PrintValue(ProtoToJson(job));
  PrintForecast(job.forecast(), output);
  output.PrintFields({{"spec", SpecText(job.resolved_spec())}});
}

// Every device of the catalogue, or the one that was named.
absl::StatusOr<int> PlanHere(const JobSpec& spec, const LocalPlanOptions& options,
                             Session& session) {
  LL_ASSIGN_OR_RETURN(const std::vector<LocalPlan> plans, PlanLocally(spec, options));
  Output& output = session.output();
  if (!options.device.empty()) {
    if (!plans[0].job.ok()) return plans[0].job.status();
    PrintPlan(*plans[0].job, session);
    return kExitSuccess;
  }
  if (output.is_table()) {
    PrintDevices(plans, output);
    return kExitSuccess;
  }
  nlohmann::ordered_json array = nlohmann::ordered_json::array();
  for (const LocalPlan& p : plans) {
    if (p.job.ok()) {
      array.push_back(ProtoToJson(*p.job));
    } else {
      array.push_back({{"device", p.device},
                       {"refused", std::string(p.job.status().message())},
                       {"hint", ErrorHint(p.job.status())}});
    }
  }
  output.PrintValue(array);
  return kExitSuccess;
}

}  // namespace

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
  PrintPlan(job, session);
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
  struct PlanOptions {
    SpecFlags flags;
    LocalPlanOptions local;
  };
  auto options = std::make_shared<PlanOptions>();
  CLI::App* command = app.add_subcommand(
      "plan", "Show what a job would become and need; nothing is stored. Flags as for submit.");
  command
      ->add_option("--device", options->local.device,
                   "Plan for this kind of device instead of a coordinator's workers: A100-80, "
                   "H100, cpu, …")
      ->type_name("KIND");
  command->add_option("--hosts", options->local.hosts, "With --device: hosts there are.")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command
      ->add_option("--gpus-per-host", options->local.gpus_per_host,
                   "With --device: GPUs (CPU slots) of a host.")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command
      ->add_option("--device-memory", options->local.memory_bytes,
                   "With --device: its memory, if not the usual; for example 16GB.")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
      ->type_name("BYTES");
  command
      ->add_option("--calibration", options->local.calibration,
                   "With --device: what `ll-trainer probe` printed on such a host.")
      ->type_name("FILE");
  command
      ->add_option(
          "--prices", options->local.prices,
          "With --device: what devices cost and draw, as ll-coordinator --prices takes it.")
      ->type_name("FILE");
  command->add_option("--currency", options->local.currency, "Of --prices.")->capture_default_str();
  options->flags.AddTo(*command);
  command->footer(
      "\nWithout a coordinator: llctl plan --model 70b --ctx 32768 --device H100 --gpus 8\n"
      "On every known device, where no coordinator answers: llctl plan --model 7b --ctx 32768");
  command->callback([options, &chosen] {
    chosen = [options](Session& session) -> absl::StatusOr<int> {
      std::vector<std::string> notes;
      LL_ASSIGN_OR_RETURN(const JobSpec spec, options->flags.Build(&notes));
      for (const std::string& note : notes) session.talk() << "llctl: note: " << note << "\n";
      if (!options->local.device.empty()) return PlanHere(spec, options->local, session);
      LL_ASSIGN_OR_RETURN(const v1::JobSpec wire, SpecToProto(spec));
      absl::StatusOr<int> planned = PlanJob(wire, session);
      if (!absl::IsUnavailable(planned.status())) return planned;
      session.talk() << "llctl: " << planned.status().message()
                     << "; planned for known devices instead\n";
      return PlanHere(spec, options->local, session);
    };
  });
}

}  // namespace ll
