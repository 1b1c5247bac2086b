// ll-trainer: training, evaluation and data preparation in one process per GPU. A complete tool by
// itself; ll-worker starts it with `run`. Reading order: cli/train.cc, rank.cc, setup.cc,
// train_loop.cc, step.cc, then model/llama.h.
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include <c10/core/GradMode.h>
#include <torch/headeronly/version.h>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "base/edit_distance.h"
#include "base/release_mark.h"
#include "base/usage_words.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/rank.h"

namespace ll {
namespace {

constexpr int kUsage = 20;  // a wrong flag is the user's error

LL_TRAINER_RELEASE_MARK(LL_VERSION);

// One line: the command that was given, what was wrong with it, what to do.
int UsageFault(const CLI::App& program, const CLI::ParseError& error) {
  const CLI::App* command = &program;
  std::string path = program.get_name();
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    path += " " + command->get_name();
  }
  std::string message = UsageInWords(error.what());
  const std::vector<std::string> unknown = program.remaining(/*recurse=*/true);
  if (!unknown.empty()) {
    std::vector<std::string> known;
    for (const CLI::Option* option : command->get_options())
      for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
    for (const CLI::App* one : command->get_subcommands(nullptr)) known.push_back(one->get_name());
    const std::string nearest = NearestName(unknown[0].substr(0, unknown[0].find('=')), known);
    message = "unknown " + unknown[0] + (nearest.empty() ? "" : "; did you mean " + nearest + "?");
  }
  std::fprintf(stderr, "%s: %s; see %s --help\n", path.c_str(), message.c_str(), path.c_str());
  return kUsage;
}

std::string VersionText() {
  return std::string("ll-trainer ") + LL_VERSION + " (LibTorch " + TORCH_VERSION + ")";
}

// A result that could not be written is none.
int CheckWritten(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  const int lost = ReportToStderr(
      absl::UnavailableError("stdout: cannot be written; is its disk full, or its reader gone?"));
  return code == 0 ? lost : code;
}

int Main(int argc, char** argv) {
  CLI::App program("Trains long-context models with S2-Attn and LoRA+, and measures them",
                   "ll-trainer");
  program.require_subcommand(1);
  program.set_version_flag("--version", VersionText(), "Prints what `version` prints");
  Command run;
  AddTrain(program, run);
  AddEval(program, run);
  AddGenerate(program, run);
  AddChat(program, run);
  AddInit(program, run);
  AddPack(program, run);
  AddQuantize(program, run);
  AddMerge(program, run);
  AddPublish(program, run);
  AddProfile(program, run);
  AddProbe(program, run);
  AddVerify(program, run);
  AddRun(program, run);
  program.add_subcommand("version", "Prints the versions of this program and of LibTorch")
      ->callback([&run] {
        run = [] {
          std::printf("%s\n", VersionText().c_str());
          return 0;
        };
      });
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return program.exit(error);
    return UsageFault(program, error);
  }
  // Forward and backward are written by hand: nothing may record a graph.
  const c10::NoGradGuard no_grad;
  try {
    return CheckWritten(run());
  } catch (const std::bad_alloc&) {
    return ReportToStderr(absl::ResourceExhaustedError("out of memory"));
  } catch (const std::exception& error) {
    const std::string text = error.what();
    return ReportToStderr(absl::InternalError(text.substr(0, text.find('\n'))));
  }
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) { return ll::Main(argc, argv); }
