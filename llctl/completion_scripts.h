// Completion scripts of shells, made from the command line's own description, so that they never
// fall behind it. Pure functions.
//
// All three work the same way: the words in front that are no flags name the command; what may
// follow are its sub-commands and flags, and where it takes a job, a worker or a schedule, the ids
// that `llctl … -o name` lists (two seconds at most). After a flag whose value is such an id, or
// one of the few that --help shows, only those.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace CLI {
class App;
}

namespace ll {

// `shell`: bash, zsh or fish. Errors (field "shell"): another one.
absl::StatusOr<std::string> CompletionScript(const CLI::App& app, const std::string& shell);

}  // namespace ll
