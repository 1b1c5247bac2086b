// llctl why
#include <CLI/CLI.hpp>

#include "base/status_macros.h"
#include "base/terminal_text.h"
#include "llctl/errors.h"
#include "llctl/job_ref.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"

namespace ll {

void AddWhyCommand(CLI::App& app, Action& chosen) {
  auto job_id = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("why", "Say in one sentence why a job is where it is.");
  command->add_option("JOB", *job_id, kJobHelp)->required();
  command->callback([job_id, &chosen] {
    chosen = [job_id](Session& session) -> absl::StatusOr<int> {
      LL_ASSIGN_OR_RETURN(Client * client, session.client());
      v1::WhyRequest request;
      LL_ASSIGN_OR_RETURN(*request.mutable_job_id(), JobIdOf(*job_id, *client));
      LL_ASSIGN_OR_RETURN(v1::WhyResponse response,
                          client->Call(client->jobs(), &v1::Jobs::Stub::Why, request));
      Output& output = session.output();
      if (output.format() == OutputFormat::kName) {
        output.stream() << request.job_id() << "\n";
      } else if (output.is_table()) {
        output.stream() << Shown(response.sentence()) << "\n";
      } else {
        output.PrintValue(ProtoToJson(response));
      }
      return kExitSuccess;
    };
  });
}

}  // namespace ll
