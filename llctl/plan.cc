// llctl plan: what a job would become and need, without submitting it.
#include "llctl/plan.h"

#include <CLI/CLI.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/plan_local.h"
#include "llctl/plan_text.h"
#include "llctl/proto_json.h"
#include "llctl/residuals.h"
#include "model/plan/calibrate.h"

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

namespace {

constexpr int kResidualJobs = 50;

struct PlanOptions {
  SpecFlags flags;
  LocalPlanOptions local;
  bool calibrate = false;
  CalibrateOptions probe;
  int64_t max_age_days = 30;
  bool residuals = false;
  std::string stray, wants;  // a flag, and the one without which it has no meaning
};

// Measures where that is due and tells of it; what is kept then goes into plans made here.
absl::StatusOr<CalibrateResult> CalibrateHere(const PlanOptions& options, Session& session) {
  CalibrateOptions probe = options.probe;
  if (options.local.device == "cpu") probe.device = "cpu";
  probe.max_age = absl::Hours(24 * options.max_age_days);
  session.talk() << "llctl: looking at this host's speed\n";
  LL_ASSIGN_OR_RETURN(CalibrateResult result,
                      Calibrate(probe, ProbeFolder(session.environment().variable), session.now()));
  session.talk() << "llctl: "
                 << (result.reason.empty() ? "kept from " + result.calibration.time
                                           : "measured, because " + result.reason)
                 << ": " << result.path << "\n";
  return result;
}

void PrintCalibration(const CalibrateResult& result, Session& session) {
  const Calibration& c = result.calibration;
  const auto giga = [](double value, const char* unit) {
    return value > 0 ? absl::StrFormat("%.4g G%s", value / 1e9, unit) : std::string();
  };
  Output& output = session.output();
  if (!output.is_table()) {
    return output.PrintValue(nlohmann::ordered_json{{"device", c.device},
                                                    {"host", c.host},
                                                    {"time", c.time},
                                                    {"build", c.build},
                                                    {"gemm_flops", c.gemm},
                                                    {"attention_flops", c.attention},
                                                    {"memory_bandwidth", c.memory_bandwidth},
                                                    {"link_bandwidth", c.link_bandwidth},
                                                    {"path", result.path}});
  }
  std::vector<std::pair<std::string, std::string>> fields = {
      {"device", c.device},
      {"host", c.host},
      {"measured", c.time},
      {"products", giga(c.gemm, "FLOP/s")},
      {"attention", giga(c.attention, "FLOP/s")},
      {"memory", giga(c.memory_bandwidth, "B/s")},
      {"loopback", giga(c.link_bandwidth, "B/s")},
      {"file", result.path}};
  std::erase_if(fields, [](const auto& field) { return field.second.empty(); });
  output.PrintFields(fields);
}

absl::StatusOr<int> RunPlan(const PlanOptions& given, Session& session) {
  PlanOptions options = given;
  if (!options.stray.empty())
    return MakeFieldError({options.stray, options.wants + " beside it", "none"});
  if (options.residuals) {
    LL_ASSIGN_OR_RETURN(const std::vector<v1::Job> jobs, FetchForecastJobs(kResidualJobs, session));
    PrintResiduals(jobs, session);
    return kExitSuccess;
  }
  std::vector<std::string> notes;
  LL_ASSIGN_OR_RETURN(const JobSpec spec, options.flags.Build(&notes));
  if (options.calibrate) {
    LL_ASSIGN_OR_RETURN(const CalibrateResult result, CalibrateHere(options, session));
    if (!spec.model && !spec.model_config) {
      PrintCalibration(result, session);
      return kExitSuccess;
    }
    if (options.local.device.empty()) options.local.device = result.calibration.device;
  }
  for (const std::string& note : notes) session.talk() << "llctl: note: " << note << "\n";
  LL_ASSIGN_OR_RETURN(options.local.kept,
                      KeptCalibrations(ProbeFolder(session.environment().variable), ThisHost()));
  if (!options.local.device.empty()) return PlanHere(spec, options.local, session);
  LL_ASSIGN_OR_RETURN(const v1::JobSpec wire, SpecToProto(spec));
  absl::StatusOr<int> planned = PlanJob(wire, session);
  if (!absl::IsUnavailable(planned.status())) return planned;
  session.talk() << "llctl: " << planned.status().message()
                 << "; planned for known devices instead\n";
  return PlanHere(spec, options.local, session);
}

void AddCalibrationFlags(CLI::App& command, PlanOptions& options) {
  command.add_flag("--calibrate", options.calibrate,
                   "Measure this host first (half a minute at most) and plan with what it reaches; "
                   "kept, and measured again when it is old. Without a model: only that.");
  command
      .add_option("--calibration-days", options.max_age_days,
                  "With --calibrate: measure again what is older.")
      ->check(CLI::Range(0, 3650))
      ->capture_default_str();
  command
      .add_option("--probe-threads", options.probe.threads,
                  "With --calibrate: threads of a CPU slot; 0 for all.")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command
      .add_option("--trainer", options.probe.trainer,
                  "With --calibrate: the ll-trainer that measures, if not the one beside llctl.")
      ->type_name("PATH");
  command.add_flag("--residuals", options.residuals,
                   "Instead of a plan: forecast beside actual of the newest trainings that the "
                   "coordinator has seen succeed.");
}

// Flags that would mean nothing: a plan of a coordinator's workers is made with its devices and
// prices.
void FindStray(const CLI::App& command, PlanOptions& options) {
  const auto look = [&](bool used, const char* wants, std::initializer_list<const char*> flags) {
    for (const char* flag : flags) {
      if (used || command.count(flag) == 0) continue;
      options.stray = flag;
      options.wants = wants;
    }
  };
  look(options.calibrate, "--calibrate", {"--calibration-days", "--probe-threads", "--trainer"});
  look(
      options.calibrate || !options.local.device.empty(), "--device KIND",
      {"--hosts", "--gpus-per-host", "--device-memory", "--calibration", "--prices", "--currency"});
}

CLI::Validator NotNegative() {
  return CLI::Validator(
      [](std::string& text) {
        return absl::StartsWith(text, "-")
                   ? absl::StrCat("expected a size such as 16GB, found ", text)
                   : std::string();
      },
      "");
}

}  // namespace

void AddPlanCommand(CLI::App& app, Action& chosen) {
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
      ->transform(NotNegative())  // first: it is unsigned behind it
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
  AddCalibrationFlags(*command, *options);
  options->flags.AddTo(*command);
  command->callback([options, command, &chosen] {
    FindStray(*command, *options);
    chosen = [options](Session& session) { return RunPlan(*options, session); };
  });
}

}  // namespace ll
