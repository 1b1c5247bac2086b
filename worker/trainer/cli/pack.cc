#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>

#include "model/data/cli/data_commands.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/rank.h"

namespace ll {
namespace {

absl::Status Pack(const PackFlags& flags) {
  const auto result = RunPack(flags, {std::cerr, isatty(STDERR_FILENO) != 0});
  if (result.ok() && !result->is_null()) std::printf("%s\n", result->dump().c_str());
  return result.status();
}

}  // namespace

void AddPack(CLI::App& program, Command& run) {
  auto flags = std::make_shared<PackFlags>();
  CLI::App* command = program.add_subcommand("pack", "Turns text into a token file");
  AddPackFlags(*command, *flags);
  command->callback([flags, &run] {
    run = [flags] {
      const absl::Status status = Pack(*flags);
      return status.ok() ? 0 : ReportToStderr(status);
    };
  });
}

}  // namespace ll
