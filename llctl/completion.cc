// llctl completion
#include <CLI/CLI.hpp>

#include "base/status_macros.h"
#include "llctl/completion_scripts.h"
#include "llctl/errors.h"
#include "llctl/session.h"

namespace ll {

void AddCompletionCommand(CLI::App& app, Action& chosen) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("completion", "Print a completion script for a shell.");
  command->add_option("SHELL", *shell, "bash, zsh or fish.")->required();
  command->callback([&app, shell, &chosen] {
    chosen = [&app, shell](Session& session) -> absl::StatusOr<int> {
      LL_ASSIGN_OR_RETURN(const std::string script, CompletionScript(app, *shell));
      session.output().stream() << script;
      return kExitSuccess;
    };
  });
}

}  // namespace ll
