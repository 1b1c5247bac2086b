// README.md of a merged model: what it is, how it was made, where it comes from, how to load it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/merge/merge_inputs.h"

namespace ll {

// SHA-256 by what it is of: the base's files, the adapter's manifest (or its weights), data and
// program. Reads the base's weights once.
using Lineage = std::vector<std::pair<std::string, std::string>>;
absl::StatusOr<Lineage> LineageOf(const MergeInputs& in);

// The card's text. `result` is what Merge returns, its "verify" included. Paths are cut to their
// last part: a card is published. Errors: files that cannot be read.
absl::StatusOr<std::string> ModelCard(const MergeRequest& request, const MergeInputs& in,
                                      const nlohmann::ordered_json& result, const Lineage& lineage);

}  // namespace ll
