// The encoder of supervised samples that the flags ask for.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/data/cli/data_flags.h"
#include "model/data/encode_records.h"

namespace ll {

// Empty without --prompt-template. Errors name the flag.
absl::StatusOr<SampleEncoder> MakeSampleEncoder(const DataFlags& flags,
                                                std::shared_ptr<const Tokenizer> tokenizer);
// PackOptions::sample_settings.
absl::StatusOr<std::string> SampleSettings(const DataFlags& flags, const Tokenizer& tokenizer);

}  // namespace ll
