// --config FILE of the daemons: a flat YAML mapping of flags to values; flags on the command line
// win.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace ll {

// Adds --config to `app`. Keys are the flags' names, with - or _; a list gives a flag several
// times. Parsing then fails (CLI::ParseError, which names the key) on an unknown key, on nested
// values and on what is not YAML.
void AddConfigFile(CLI::App& app);

// What was wrong with a command line or a configuration file, in one line with what to do:
// "PROGRAM: MESSAGE; see PROGRAM --help", with the flag that may have been meant.
std::string UsageLine(const CLI::App& app, const CLI::ParseError& error);

}  // namespace ll
