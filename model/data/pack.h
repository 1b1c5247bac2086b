// Text, instructions and conversations to a token file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/data/encode_records.h"
#include "model/text/tokenizer.h"

namespace ll {

struct PackProgress {
  int64_t bytes_done = 0, bytes_total = 0;  // of the input files as they lie on the disk
  int64_t tokens = 0, documents = 0;
};

struct PackOptions {
  std::vector<std::string> inputs;  // see FindInputFiles
  std::string output;
  DocumentSplit split = DocumentSplit::kFile;
  bool add_bos = false;  // in front of each text document
  bool add_eos = true;   // after each
  // Set: supervised samples; the file gets loss_spans. `sample_settings` must tell any two encoders
  // apart that give different ids.
  SampleEncoder encode_sample;
  std::string sample_settings;
  InvalidUtf8 invalid_utf8 = InvalidUtf8::kRefuse;
  bool skip_bad_records = false;  // rather than stop at the first; each is told to `warn`
  int threads = 0;                // 0: one for each core
  int64_t commit_bytes = int64_t{64} << 20;           // of text between two commits to the disk
  std::function<void(const PackProgress&)> progress;  // after each batch and each commit
  std::function<void(const std::string&)> warn;
};

struct PackResult {
  int64_t tokens = 0, documents = 0;
  int64_t text_bytes = 0;     // of the records, decompressed
  int64_t target_tokens = 0;  // supervised samples: tokens with a loss
  int64_t truncated_targets = 0;
  int64_t skipped = 0;         // bad records
  int64_t dropped = 0;         // samples that the encoder dropped for their length
  int64_t replaced = 0;        // records with bytes that are not UTF-8
  int64_t resumed_tokens = 0;  // of `tokens`, those an earlier, killed run had made
};

// Writes `output` and its sidecar, whole, or nothing. Killed in between it leaves OUTPUT.partial
// and its journal, and the next call with the same inputs, tokenizer and settings goes on from
// there; the result is the same to the byte, and for any number of threads. Errors: an input that
// cannot be read or has no text, a bad record (with file and line), a BOS or EOS that is wanted and
// that the tokenizer does not have, another process that packs to `output`.
absl::StatusOr<PackResult> PackText(const PackOptions& options, const Tokenizer& tokenizer);

}  // namespace ll
