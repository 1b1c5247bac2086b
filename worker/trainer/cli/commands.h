// The subcommands of ll-trainer. Each Add* declares its flags on the program and, when its
// subcommand was given, sets `run` to what main is to call; `run` returns the exit code.
#pragma once

#include <functional>

#include "CLI/CLI.hpp"

namespace ll {

using Command = std::function<int()>;

void AddTrain(CLI::App& program, Command& run);     // train
void AddRun(CLI::App& program, Command& run);       // run: one rank of a job, started by ll-worker
void AddEval(CLI::App& program, Command& run);      // eval perplexity, passkey, topics
void AddGenerate(CLI::App& program, Command& run);  // generate
void AddChat(CLI::App& program, Command& run);      // chat
void AddInit(CLI::App& program, Command& run);      // init: a model folder with random weights
void AddPack(CLI::App& program, Command& run);      // pack: text to tokens
void AddQuantize(CLI::App& program, Command& run);  // quantize: a model folder to NF4

void AddMerge(CLI::App& program, Command& run);    // merge: base and adapter to one folder
void AddVerify(CLI::App& program, Command& run);   // verify: a window run again and compared
void AddPublish(CLI::App& program, Command& run);  // publish: a checked copy of a model folder
void AddProfile(CLI::App& program, Command& run);  // profile flops
void AddProbe(CLI::App& program, Command& run);    // probe: how fast this host is, for plans

}  // namespace ll
