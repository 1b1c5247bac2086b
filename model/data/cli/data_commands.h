// What the commands `pack` and `doctor` do.
#pragma once

#include <ostream>

#include "absl/status/statusor.h"
#include "model/data/cli/data_flags.h"
#include "model/data/doctor.h"
#include "nlohmann/json.hpp"

namespace ll {

// Where talk goes while a command runs; a live line needs a terminal.
struct DataTalk {
  std::ostream& out;
  bool terminal = false;
};

// Errors name the flag or the file and line. An empty result: only a tokenizer was wanted.
absl::StatusOr<nlohmann::ordered_json> RunPack(const PackFlags& flags, const DataTalk& talk);
absl::StatusOr<DoctorReport> RunDoctor(const DoctorFlags& flags);

}  // namespace ll
