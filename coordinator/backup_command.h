// `ll-coordinator backup` and `ll-coordinator restore`.
#pragma once

#include <optional>

namespace CLI {
class App;
}

namespace ll {

// Names the two in a command line's help; they are run by RunBackupCommand, before it is parsed.
void NameBackupCommands(CLI::App& app);

// Runs the subcommand that the command line begins with; its exit code (0, 1 it failed, 2 wrong
// usage). nullopt: it begins with neither.
std::optional<int> RunBackupCommand(int argc, char** argv);

}  // namespace ll
