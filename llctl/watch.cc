// llctl watch
#include <CLI/CLI.hpp>

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
  command->add_option("JOB", options->job_id, "Job id.")->required();
  command
      ->add_option("--from-step", options->from_step,
                   "First step to show. Default: 0, all of them.")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("N");
  command->footer("\nCtrl-C detaches; the job goes on.");
  command->callback([options, &chosen] {
    chosen = [options](Session& session) {
      return WatchJob(session, options->job_id, options->from_step);
    };
  });
}

}  // namespace ll
