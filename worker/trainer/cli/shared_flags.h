// Flags that several subcommands have.
#pragma once

#include <cstdint>
#include <string>

#include "CLI/CLI.hpp"

namespace ll {

// `--threads`, where 0 is what SetThreads makes of it, and `--seed`. CLI11 by itself would take -1
// for a great number and a number that is too great for the greatest.
CLI::Option* AddThreads(CLI::App& command, int& threads, const std::string& help);
CLI::Option* AddSeed(CLI::App& command, uint64_t& seed, const std::string& help);

}  // namespace ll
