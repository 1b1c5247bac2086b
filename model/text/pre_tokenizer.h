// The `normalizer` and `pre_tokenizer` sections of a tokenizer.json as lists of steps.
//
// Semantics follow the `tokenizers` library (huggingface/tokenizers); a step it has and this
// project does not know is an error when the file is opened, never a silent difference. Steps are
// immutable and thread-safe.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/text/pieces.h"
#include "nlohmann/json.hpp"

namespace ll {

// How much longer a tokenizer's steps may make a text, all together, and how many there may be: a
// hostile file could double its input step by step.
class GrowthBudget {
 public:
  // One more step, which makes a text up to `factor` times as long. InvalidArgument where that is
  // too much.
  absl::Status Spend(double factor);

 private:
  double factor_ = 1;
  int steps_ = 0;
};

// Text in, text out. Known types: NFC NFD NFKC NFKD Lowercase Strip Prepend Replace Sequence.
using NormalizerStep = std::function<absl::StatusOr<std::string>(std::string)>;
absl::StatusOr<std::vector<NormalizerStep>> ParseNormalizer(const nlohmann::json& section,
                                                            GrowthBudget& growth);

// Splits (and may rewrite) every piece. Known types: ByteLevel Digits Split Metaspace
// WhitespaceSplit Sequence.
using PreTokenizerStep = std::function<absl::Status(Pieces&)>;
absl::StatusOr<std::vector<PreTokenizerStep>> ParsePreTokenizer(const nlohmann::json& section,
                                                                GrowthBudget& growth);

// GPT-2's reversible map of bytes to printable characters, as UTF-8: byte 0x20 is "Ġ".
const std::array<std::string, 256>& ByteLevelAlphabet();

// A member as text, or an error that names it.
absl::StatusOr<std::string> JsonText(const nlohmann::json& object, const char* member);

}  // namespace ll
