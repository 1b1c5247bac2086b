// llctl's whole command line as CLI11 knows it: parsed by RunLlctl, and walked by the completion
// scripts, the manual pages and the tests, so that none of them falls behind it.
#pragma once

#include <CLI/CLI.hpp>

#include "llctl/client.h"
#include "llctl/output.h"
#include "llctl/session.h"

namespace ll {

class CommandLine {
 public:
  CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  CLI::App app;
  // What parsing fills in.
  ClientOptions client;
  OutputFormat format = OutputFormat::kTable;
  double timeout_seconds = 30;
  Action chosen;

 private:
  void AddGlobalFlags();
};

// A number from `low` to `high`. CLI::Range lets pass what is no number, which would wait for ever.
CLI::Validator NumberFrom(double low, double high);

// Makes seconds of "90m" or "24h"; a number is seconds already.
CLI::Validator DurationInSeconds();

// "models add" of its app; "" of the program itself.
std::string CommandPath(const CLI::App& command);

// The sub-commands, in the order of --help.
std::vector<const CLI::App*> SubCommands(const CLI::App& command);

}  // namespace ll
