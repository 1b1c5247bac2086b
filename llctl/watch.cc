// llctl watch
#include <CLI/CLI.hpp>

#include "base/status_macros.h"
#include "llctl/job_ref.h"
#include "llctl/progress.h"
#include "llctl/session.h"

namespace ll {

void AddWatchCommand(CLI::App& app, Action& chosen) {
  struct Options {
    std::string job_id;
    int64_t from_step = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("watch", "Follow a job to its end; its outcome is the exit code.");
  command->add_option("JOB", options->job_id, kJobHelp)->required();
  command
      ->add_option("--from-step", options->from_step,
                   "First step to show. Default: 0, all of them.")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("N");
  command->footer("\nCtrl-C detaches; the job goes on.");
  command->callback([options, &chosen] {
    chosen = [options](Session& session) -> absl::StatusOr<int> {
      LL_ASSIGN_OR_RETURN(Client * client, session.client());
      LL_ASSIGN_OR_RETURN(const std::string job_id, JobIdOf(options->job_id, *client));
      return WatchJob(session, job_id, options->from_step);
    };
  });
}

}  // namespace ll
