#include <memory>

#include "worker/trainer/cli/commands.h"
#include "worker/trainer/cli/shared_flags.h"
#include "worker/trainer/rank.h"

namespace ll {

void AddVerify(CLI::App& program, Command& run) {
  struct Flags {
    std::string checkpoint;
    int64_t steps = 0;
    RankFlags rank;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = program.add_subcommand(
      "verify", "Runs the steps before a checkpoint again and compares every bit with it");
  command->add_option("--checkpoint", flags->checkpoint, "Folder …/checkpoints/step-NNNNNN")
      ->required()
      ->type_name("DIR");
  command
      ->add_option("--steps", flags->steps,
                   "At most so many steps, from the oldest checkpoint within them; default: from "
                   "the checkpoint before")
      ->check(CLI::PositiveNumber);
  command->add_option("--out", flags->rank.out, "Folder for this run's events")
      ->required()
      ->type_name("DIR");
  AddThreads(*command, flags->rank.threads, "CPU threads, as the training had");
  command->callback([flags, &run] {
    run = [flags] {
      JobSpec spec;
      spec.kind = "verify";
      spec.adapter = flags->checkpoint;
      if (flags->steps > 0) spec.max_steps = flags->steps;
      return RunRank(spec, flags->rank);
    };
  });
}

}  // namespace ll
