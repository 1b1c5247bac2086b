// llctl cancel, pause, resume: one wish for one or several jobs.
#include <CLI/CLI.hpp>

#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/job_ref.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"

namespace ll {
namespace {

using Wish = std::function<absl::StatusOr<v1::Job>(Client&, const std::string& job_id)>;

void PrintOutcome(const std::vector<v1::Job>& jobs, Output& output) {
  if (output.format() == OutputFormat::kName || output.is_table()) {
    for (const v1::Job& job : jobs) {
      output.stream() << (output.is_table() ? JobLine(job, output) : job.job_id()) << "\n";
    }
  } else if (jobs.size() == 1) {
    output.PrintValue(ProtoToJson(jobs[0]));
  } else {
    nlohmann::ordered_json array = nlohmann::ordered_json::array();
    for (const v1::Job& job : jobs) array.push_back(ProtoToJson(job));
    output.PrintValue(array);
  }
}

// A job that refuses does not keep the others from it; the exit code is the last error's.
absl::StatusOr<int> ForEachJob(const std::vector<std::string>& job_ids, const Wish& wish,
                               Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  std::vector<v1::Job> done;
  std::vector<absl::Status> failures;
  for (const std::string& job_id : job_ids) {
    const absl::StatusOr<std::string> id = JobIdOf(job_id, *client);
    absl::StatusOr<v1::Job> job = id.ok() ? wish(*client, *id) : id.status();
    if (job.ok()) {
      done.push_back(*std::move(job));
      continue;
    }
    failures.push_back(job.status());
    // Nobody will answer for the others either.
    if (absl::IsUnavailable(job.status()) || absl::IsUnauthenticated(job.status())) break;
  }
  if (!done.empty()) PrintOutcome(done, session.output());
  if (failures.empty()) return kExitSuccess;
  session.output().stream().flush();
  const bool json = session.output().format() == OutputFormat::kJson;
  for (size_t i = 0; i + 1 < failures.size(); ++i) PrintError(failures[i], json, session.talk());
  return failures.back();
}

template <typename Request>
Wish Call(grpc::Status (v1::Jobs::Stub::*method)(grpc::ClientContext*, const Request&, v1::Job*)) {
  return [method](Client& client, const std::string& job_id) {
    Request request;
    request.set_job_id(job_id);
    return client.Call(client.jobs(), method, request);
  };
}

}  // namespace

void AddControlCommands(CLI::App& app, Action& chosen) {
  struct Options {
    std::vector<std::string> job_ids;
    std::string reason;
  };
  const auto add = [&](const char* name, const char* help,
                       const std::function<Wish(const Options&)>& make_wish) {
    auto options = std::make_shared<Options>();
    CLI::App* command = app.add_subcommand(name, help);
    command->add_option("JOB", options->job_ids, kJobsHelp)->required();
    command->callback([options, make_wish, &chosen] {
      chosen = [options, make_wish](Session& session) {
        return ForEachJob(options->job_ids, make_wish(*options), session);
      };
    });
    return std::make_pair(command, options);
  };
  auto [cancel, options] =
      add("cancel", "End a job. Returns when the wish is on disk.", [](const Options& o) -> Wish {
        return [reason = o.reason](Client& client, const std::string& job_id) {
          v1::CancelRequest request;
          request.set_job_id(job_id);
          request.set_reason(reason);
          return client.Call(client.jobs(), &v1::Jobs::Stub::Cancel, request);
        };
      });
  cancel->add_option("--reason", options->reason, "Kept with the job.")->type_name("TEXT");
  add("pause", "Checkpoint a job, stop it and free its slots.",
      [](const Options&) { return Call(&v1::Jobs::Stub::Pause); });
  add("resume", "Put a paused job back into its queue.",
      [](const Options&) { return Call(&v1::Jobs::Stub::Resume); });
}

}  // namespace ll
