#include "worker/trainer/cli/shared_flags.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace ll {

CLI::Option* AddThreads(CLI::App& command, int& threads, const std::string& help) {
  return command.add_option("--threads", threads, help)->check(CLI::Range(0, 4096).description(""));
}

CLI::Option* AddSeed(CLI::App& command, uint64_t& seed, const std::string& help) {
  return command.add_option("--seed", seed, help)
      ->capture_default_str()
      ->check(CLI::Validator(
          [](const std::string& text) {
            uint64_t number = 0;
            return absl::SimpleAtoi(text, &number)
                       ? std::string()
                       : absl::StrCat("expected an integer from 0 to 2^64 - 1, found ", text);
          },
          ""));
}

}  // namespace ll
