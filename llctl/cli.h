// The command line: reads it, runs the command it names, turns every failure into a line and an
// exit code.
#pragma once

#include <string>
#include <vector>

#include "llctl/session.h"

namespace ll {

// `arguments` without the program's name. Returns the exit code (llctl/errors.h).
int RunLlctl(const std::vector<std::string>& arguments, const Environment& environment);

}  // namespace ll
