#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>

#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/trainer/cli/commands.h"
#include "worker/trainer/cli/generate_flags.h"
#include "worker/trainer/rank.h"

namespace ll {
namespace {

struct Flags : GenerateFlags {
  CLI::Option* prompt_given = nullptr;
  std::string prompt, prompt_file;
  bool json = false;
};

absl::StatusOr<std::string> PromptText(const Flags& flags) {
  if (flags.prompt_given->count() > 0) return flags.prompt;
  if (!flags.prompt_file.empty()) {
    const auto text = ReadFile(flags.prompt_file);
    return text.ok() ? text : Annotate(text.status(), "prompt-file");
  }
  if (isatty(STDIN_FILENO) != 0) {
    return MakeFieldError({"prompt", "--prompt, --prompt-file or text on standard input", "none"});
  }
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

absl::Status Generate(const Flags& flags) {
  LL_ASSIGN_OR_RETURN(const std::string prompt, PromptText(flags));
  LL_ASSIGN_OR_RETURN(const auto generator, TextGenerator::Open(flags.model));
  LL_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, generator->EncodePrompt(prompt));
  LL_ASSIGN_OR_RETURN(const Answer answer,
                      generator->Complete(ids, flags.answer, [&](absl::string_view text) {
                        return flags.json || text.empty() || PrintText(text);
                      }));
  const std::string end = flags.json ? ToJson(answer).dump() : "";
  std::printf("%s\n", end.c_str());
  return absl::OkStatus();
}

}  // namespace

void AddGenerate(CLI::App& program, Command& run) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = program.add_subcommand("generate", "Continues a text");
  flags->prompt_given = command->add_option("--prompt", flags->prompt, "The text to continue");
  flags->prompt_given->type_name("TEXT");
  command
      ->add_option("--prompt-file", flags->prompt_file,
                   "A file that holds it; default: standard input")
      ->type_name("FILE")
      ->excludes(flags->prompt_given);
  AddGenerateFlags(*command, *flags);
  command->add_flag("--json", flags->json,
                    "One JSON object in the end, with ids and times, instead of text as it comes");
  command->callback([flags, &run] {
    run = [flags] {
      SetThreads(flags->threads, 1);
      const absl::Status status = Generate(*flags);
      return status.ok() ? 0 : ReportToStderr(status);
    };
  });
}

}  // namespace ll
