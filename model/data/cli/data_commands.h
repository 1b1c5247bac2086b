// The flags and the doing of `pack` and `doctor`, which llctl and ll-trainer share.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/data/doctor.h"
#include "model/data/pack.h"
#include "nlohmann/json.hpp"

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

// Where talk goes while a command runs; a live line needs a terminal.
struct DataTalk {
  std::ostream& out;
  bool terminal = false;
};

// The flags must outlive `command`.
void AddPackFlags(CLI::App& command, PackFlags& flags);
void AddDoctorFlags(CLI::App& command, DoctorFlags& flags);

// Errors name the flag or the file and line. An empty result: only a tokenizer was wanted.
absl::StatusOr<nlohmann::ordered_json> RunPack(const PackFlags& flags, const DataTalk& talk);
absl::StatusOr<DoctorReport> RunDoctor(const DoctorFlags& flags);

}  // namespace ll
