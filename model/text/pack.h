// Text files to a token file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/text/tokenizer.h"

namespace ll {

// Where a document ends. kFile: each file is one. kBlankLine: at one or more empty lines.
// kJsonLines: each line is an object whose member "text" is the document (LongQLoRA's pre-training
// data).
enum class DocumentSplit { kFile, kBlankLine, kJsonLines };

struct PackOptions {
  std::vector<std::string> inputs;  // text files, UTF-8
  std::string output;
  DocumentSplit split = DocumentSplit::kFile;
  bool add_bos = false;  // in front of each document
  bool add_eos = true;   // after each document
};

struct PackResult {
  int64_t tokens = 0, documents = 0, text_bytes = 0;
};

// Writes `output` and its sidecar, or nothing. Errors: an input that cannot be read or has no text,
// a wanted BOS or EOS the tokenizer does not have, a JSON line without text (with its number).
absl::StatusOr<PackResult> PackText(const PackOptions& options, const Tokenizer& tokenizer);

}  // namespace ll
