// A long text tokenized in parts that give the same ids as the whole.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/text/tokenizer.h"

namespace ll {

// The last place, or 0, where a tokenizer with SplitsAtLines() may be given the text in two parts:
// after a newline that follows a printable ASCII character and stands before an ASCII letter. (Two
// newlines are one piece to many tokenizers, and a space may belong to either side.)
size_t LastSafeCut(absl::string_view text);

// Tokenizes parts. Thread-safe; `tokenizer` must outlive it.
class LinePartEncoder {
 public:
  // Error: a tokenizer without SplitsAtLines().
  static absl::StatusOr<LinePartEncoder> Create(const Tokenizer& tokenizer);

  // Appends the ids of `text`, which starts a document (`first`) or follows a cut.
  absl::Status Encode(absl::string_view text, bool first, std::vector<int32_t>& out) const;

 private:
  explicit LinePartEncoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  const Tokenizer* tokenizer_;
  std::vector<int32_t> context_;  // ids of a line in front, which a later part is given and loses
};

}  // namespace ll
