// Checks on a SentencePiece model before its library sees it.
//
// The library follows the offsets of a model's normalisation rules (a double-array trie,
// Darts-clone's format) without looking whether they lead out of the file: a hostile model makes it
// read anywhere. Here every offset that any text can reach is checked.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ll {

// InvalidArgument where `serialized` is not a ModelProto's wire format, or where its rules lead out
// of themselves. What the library checks by itself (pieces, types) is left to it. Thread-safe.
absl::Status CheckSentencePieceModel(absl::string_view serialized);

// BPE with byte fallback that takes the text as it is but for spaces, as the models of Llama and
// Mistral and those this project trains. `serialized` has passed the check above.
bool IsPlainBpeModel(absl::string_view serialized);

}  // namespace ll
