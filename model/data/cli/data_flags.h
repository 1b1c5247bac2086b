// The flags of `pack` and `doctor`. Without the libraries that do the work, so that llctl, which
// must not link them (docs/decisions/006-data-program.md), can read and explain them too.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace ll {

// What both commands ask.
struct DataFlags {
  std::vector<std::string> inputs;
  std::string tokenizer;
  std::string documents = "file", invalid_utf8 = "error";
  bool add_bos = false, no_eos = false;
  std::string prompt_template;  // empty: plain text
  int64_t max_seq_length = 0;
  std::string truncation = "right";
  int threads = 0;
};

struct PackFlags {
  DataFlags data;
  std::string output, train_tokenizer, on_bad_sample = "stop";
  int64_t vocab_size = 0;
};

struct DoctorFlags {
  DataFlags data;
  int64_t context_length = 0;
  int preview = 1;
};

// The flags must outlive `command`.
void AddPackFlags(CLI::App& command, PackFlags& flags);
void AddDoctorFlags(CLI::App& command, DoctorFlags& flags);

// The arguments that were given to a command that was parsed, for another program that has it.
std::vector<std::string> GivenArguments(const CLI::App& command);

}  // namespace ll
