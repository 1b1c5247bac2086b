// llctl submit
#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/job_ref.h"
#include "llctl/plan.h"
#include "llctl/progress.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"
#include "llctl/spec_flags.h"
#include "llctl/sweep.h"

namespace ll {
namespace {

struct SubmitOptions {
  SpecFlags spec;
  std::vector<std::string> sweeps;
  std::string request_id;
  bool dry_run = false;
  bool watch = false;
};

void TellRepeat(const std::string& request_id, Session& session) {
  session.talk() << "llctl: request id " << request_id << " was seen before; nothing is new\n";
}

// Several jobs that came to be together.
void PrintJobs(const google::protobuf::RepeatedPtrField<v1::Job>& jobs, Session& session) {
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    for (const v1::Job& job : jobs) output.stream() << job.job_id() << "\n";
    return;
  }
  if (!output.is_table()) {
    nlohmann::ordered_json array = nlohmann::ordered_json::array();
    for (const v1::Job& job : jobs) array.push_back(ProtoToJson(job));
    return output.PrintValue(array);
  }
  Table table({"JOB", "NAME", "STATE", "REASON"});
  for (const v1::Job& job : jobs) {
    table.Add({job.job_id(), job.spec().name(), v1::JobState_Name(job.state()), job.reason()});
  }
  output.PrintTable(table);
}

absl::StatusOr<int> SubmitSweep(const SubmitOptions& options, Session& session) {
  if (options.watch) {
    return MakeFieldError({"watch", "one job to follow", "a sweep", "llctl watch JOB follows one"});
  }
  std::vector<std::string> notes;
  LL_ASSIGN_OR_RETURN(const JobSpec base, options.spec.Build(&notes));
  for (const std::string& note : notes) session.talk() << "llctl: note: " << note << "\n";
  Random& random = session.environment().random;
  LL_ASSIGN_OR_RETURN(
      const std::vector<JobSpec> specs,
      ExpandSweep(base, options.sweeps, absl::StrCat("array-", RandomHex(random, 3))));
  v1::SubmitAllRequest request;
  request.set_request_id(options.request_id.empty() ? NewRequestId(random) : options.request_id);
  request.set_dry_run(options.dry_run);
  for (const JobSpec& spec : specs) {
    v1::SubmitMember* member = request.add_members();
    member->set_name(absl::StrCat(request.members_size() - 1));
    LL_ASSIGN_OR_RETURN(*member->mutable_spec(), SpecToProto(spec));
  }
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(const v1::SubmitAllResponse response,
                      client->Call(client->jobs(), &v1::Jobs::Stub::SubmitAll, request));
  if (options.dry_run) {
    PrintPlans(response.jobs(), session);
    return kExitSuccess;
  }
  if (response.existed()) TellRepeat(request.request_id(), session);
  PrintJobs(response.jobs(), session);
  return kExitSuccess;
}

absl::StatusOr<int> RunSubmit(const SubmitOptions& options, Session& session) {
  // First, so that Ctrl-C behaves the same before and after the answer and gRPC's threads inherit
  // the mask.
  if (options.watch) session.environment().interrupt.Arm();
  if (!options.sweeps.empty()) return SubmitSweep(options, session);
  LL_ASSIGN_OR_RETURN(v1::JobSpec spec, BuildSpec(options.spec, session));
  if (options.dry_run) return PlanJob(spec, session);

  const std::string request_id =
      options.request_id.empty() ? NewRequestId(session.environment().random) : options.request_id;
  LL_ASSIGN_OR_RETURN(v1::SubmitResponse response, SubmitJob(spec, request_id, session));
  if (response.existed()) TellRepeat(request_id, session);
  const v1::Job& job = response.job();
  Output& output = session.output();
  const bool graph = response.members_size() > 0;
  if (options.watch) {
    // A graph's last job ends well only when all have.
    for (const v1::Job& member : response.members())
      session.talk() << "llctl: " << member.job_id() << " " << member.spec().name() << "\n";
    return WatchJob(session, job.job_id(), /*from_step=*/0);
  }
  if (graph) {
    PrintJobs(response.members(), session);
  } else if (output.format() == OutputFormat::kName) {
    output.stream() << job.job_id() << "\n";
  } else if (output.is_table()) {
    output.stream() << JobLine(job, output) << "\n";
    if (const std::string forecast = ForecastText(job.forecast()); !forecast.empty()) {
      session.talk() << "forecast: " << forecast << "\n";
    }
  } else {
    output.PrintValue(ProtoToJson(job));
  }
  return kExitSuccess;
}

}  // namespace

std::string NewRequestId(Random& random) {
  // RFC 4122, version 4.
  const uint64_t high = (random.Next() & 0xFFFFFFFFFFFF0FFFull) | 0x4000;
  const uint64_t low = (random.Next() & 0x3FFFFFFFFFFFFFFFull) | 0x8000000000000000ull;
  return absl::StrFormat("%08x-%04x-%04x-%04x-%012x", high >> 32, (high >> 16) & 0xFFFF,
                         high & 0xFFFF, low >> 48, low & 0xFFFFFFFFFFFFull);
}

absl::StatusOr<v1::SubmitResponse> SubmitJob(const v1::JobSpec& spec, const std::string& request_id,
                                             Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  v1::SubmitRequest request;
  *request.mutable_spec() = spec;
  if (spec.has_job()) {
    LL_ASSIGN_OR_RETURN(const std::string job_id, JobIdOf(spec.job(), *client));
    request.mutable_spec()->set_job(job_id);
  }
  // With it the channel's retries are safe: a second delivery finds the first one's job.
  request.set_request_id(request_id);
  return client->Call(client->jobs(), &v1::Jobs::Stub::Submit, request);
}

void AddSubmitCommand(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<SubmitOptions>();
  CLI::App* command =
      app.add_subcommand("submit", "Submit a job; it is on disk when this returns.");
  options->spec.AddTo(*command);
  command
      ->add_option("--request-id", options->request_id,
                   "Submitting again with the same id gives the same job. Default: a random one.")
      ->type_name("ID");
  command
      ->add_option("--sweep", options->sweeps,
                   "A job for each value of a key; given several times, for each combination. "
                   "Values of lists are separated by ';'.")
      ->type_name("KEY=V,V,...")
      ->allow_extra_args(false);
  command->add_flag("--dry-run", options->dry_run, "Only validate and forecast, as `llctl plan`.");
  command->add_flag("--watch", options->watch,
                    "Follow the job to its end; its outcome is the exit code.");
  command->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunSubmit(*options, session); };
  });
}

}  // namespace ll
