// Examples for --help, for the manual pages and for the completeness of both: a command without one
// fails llctl_test.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace ll {

// Command lines, each of which can be parsed; empty for a path that is not known. `path`:
// "models add".
std::vector<std::string> ExamplesOf(const std::string& path);

// Puts each command's examples below its help, before what its footer says.
void AddExamples(CLI::App& app);

}  // namespace ll
