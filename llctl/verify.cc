// llctl verify: submits a job that runs a past window again, and waits for what it finds.
#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/plan.h"
#include "llctl/result.h"
#include "llctl/session.h"

namespace ll {
namespace {

struct VerifyOptions {
  std::map<std::string, std::string> keys;  // the flags by the spec key they set
  std::string job, request_id;
};

absl::StatusOr<int> RunVerify(const VerifyOptions& options, Session& session) {
  session.environment().interrupt.Arm();
  JobSpec spec;
  for (const auto& [key, text] : options.keys) LL_RETURN_IF_ERROR(SetField(spec, key, text));
  spec.kind = "verify";
  spec.job = options.job;
  LL_RETURN_IF_ERROR(Validate(spec));
  LL_ASSIGN_OR_RETURN(const v1::JobSpec wanted, SpecToProto(spec));
  const std::string request_id =
      options.request_id.empty() ? NewRequestId(session.environment().random) : options.request_id;
  LL_ASSIGN_OR_RETURN(const v1::SubmitResponse response, SubmitJob(wanted, request_id, session));
  const std::string job_id = response.job().job_id();
  session.talk() << "llctl: verifying as " << job_id << std::endl;
  return AwaitResult(job_id, "verification", session, [&session](const v1::Job& verified) {
    PrintJobResult(verified, session);
    return absl::OkStatus();
  });
}

}  // namespace

void AddVerifyCommand(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<VerifyOptions>();
  CLI::App* command = app.add_subcommand(
      "verify", "Run a job's last steps again and compare every bit with its newest checkpoint.");
  command->add_option("JOB", options->job, "Training whose newest checkpoint is verified.")
      ->required();
  AddKeyFlag(*command, options->keys, "--steps", "max_steps", "N",
             "At most so many steps, from the oldest checkpoint within them. Default: from the "
             "checkpoint before.");
  AddKeyFlag(*command, options->keys, "--name", "name", "TEXT", "Free text for people.");
  command->add_option("--request-id", options->request_id, "As for submit.")->type_name("ID");
  command->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunVerify(*options, session); };
  });
}

}  // namespace ll
