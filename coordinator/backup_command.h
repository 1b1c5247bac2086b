// `ll-coordinator backup` and `ll-coordinator restore`.
#pragma once

#include <optional>

namespace ll {

// Runs the subcommand that the command line begins with; its exit code (0, 1 it failed, 2 wrong
// usage). nullopt: it begins with neither.
std::optional<int> RunBackupCommand(int argc, char** argv);

}  // namespace ll
