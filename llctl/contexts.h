// Named coordinators: ~/.config/ll/config.yaml says for each where it is, which CA signed its
// certificate and in which file the token lies. Tokens themselves stand in files of their own
// (0600) beside it, never in it.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "llctl/client.h"

namespace ll {

struct CoordinatorContext {
  std::string coordinator;  // HOST:PORT[,HOST:PORT…]
  std::string ca_file;      // absolute; empty: none
  std::string token_file;   // absolute; empty: none
};

struct ContextFile {
  std::string current;  // empty: none is chosen
  std::map<std::string, CoordinatorContext> contexts;
};

// ${XDG_CONFIG_HOME:-$HOME/.config}/ll
std::string ConfigDir(const EnvironmentReader& environment);
// Nothing where there is no file. InvalidArgument with the key that is wrong.
absl::StatusOr<ContextFile> ReadContexts(const std::string& config_dir);
// Makes the folder (0700) and replaces the file (0600).
absl::Status WriteContexts(const std::string& config_dir, const ContextFile& file);
// What a command connects to: `wanted` (--context), else LLCTL_CONTEXT, else the current one; an
// empty one where none is chosen. NotFound: there is none of that name.
absl::StatusOr<CoordinatorContext> ChosenContext(const std::string& wanted,
                                                 const EnvironmentReader& environment);
// 1 to 64 letters, digits, '.', '_' or '-': it is part of a file's name. InvalidArgument.
absl::Status CheckContextName(const std::string& name);

}  // namespace ll
