// The `decoder` section of a tokenizer.json: token texts back to text. Immutable, thread-safe.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/text/pre_tokenizer.h"
#include "nlohmann/json.hpp"

namespace ll {

// Rewrites the list of token texts; the decoded text is the list's concatenation after the last
// step. Known types: ByteLevel ByteFallback Fuse Metaspace Replace Strip Sequence.
using DecoderStep = std::function<void(std::vector<std::string>&)>;
absl::StatusOr<std::vector<DecoderStep>> ParseDecoder(const nlohmann::json& section,
                                                      GrowthBudget& growth);

}  // namespace ll
