// The flags that `generate` and `chat` share.
#pragma once

#include <string>

#include "CLI/CLI.hpp"
#include "worker/trainer/generate/text_generator.h"

namespace ll {

struct GenerateFlags {
  TextGeneratorOptions model;
  AnswerOptions answer;
  int threads = 0;
};

// The values in `flags` at the time of the call are the defaults that the help text shows.
void AddGenerateFlags(CLI::App& command, GenerateFlags& flags);

// A model's text as it comes, on standard output: to a terminal without what that would obey, to
// anything else as it is. False: the reader is gone.
bool PrintText(absl::string_view text);

// One line on standard error.
void WarnToStderr(absl::string_view message);

}  // namespace ll
