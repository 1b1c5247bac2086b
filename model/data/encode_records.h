// Records to token ids, on several threads, in the order of the input.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/data/raw_reader.h"
#include "model/data/record.h"
#include "model/data/record_parser.h"
#include "model/text/token_file.h"
#include "model/text/tokenizer.h"

namespace ll {

// A supervised sample. No ids: it was dropped on purpose.
struct EncodedSample {
  std::vector<int32_t> ids;
  TokenSpans loss_spans;  // the targets, in tokens of the sample
  int64_t truncated_targets = 0;
};
// Must be thread-safe; errors name the record's file and line. (model/chat/sft_encoder.h)
using SampleEncoder = std::function<absl::StatusOr<EncodedSample>(const Record&)>;

struct EncodeOptions {
  int threads = 0;  // 0: one for each core
  // Set: supervised samples, which carry their own special tokens. Absent: text.
  SampleEncoder encode_sample;
  bool add_bos = false, add_eos = false;  // of text documents
  InvalidUtf8 invalid_utf8 = InvalidUtf8::kRefuse;
  bool keep_records = false;  // in EncodedPart::record
  // Of the records before the reader's position in its file, where that is known.
  std::optional<Record::Kind> kind;
};

// A record, or a part of a long text document.
struct EncodedPart {
  size_t file = 0;
  int64_t line = 0;
  Record::Kind kind = Record::Kind::kText;
  bool first = true, last = true;
  bool replaced = false;      // had bytes that are not UTF-8
  size_t begin = 0, end = 0;  // of its ids in the batch
  TokenSpans loss_spans;      // supervised samples
  int64_t truncated_targets = 0;
  absl::Status status;  // a record that could not be used; it has no ids
  Record record;        // with keep_records
};

struct EncodedBatch {
  std::vector<int32_t> ids;
  std::vector<EncodedPart> parts;
  int64_t text_bytes = 0;  // of the records, as they were read
  // Behind this batch: what EncodeRecords needs to go on.
  ReadPosition after;
  std::optional<Record::Kind> kind;
  int64_t file_bytes = 0;  // RawReader::file_bytes
};

// Reads to the end and hands every batch, in order, to `sink` on the calling thread. What a batch
// holds depends on the input alone, never on the number of threads. A bad record (see ParseRecord;
// also: plain records without encode_sample, a record of another kind than those before it in its
// file) is handed on with its status. Errors: the reader's, after everything before it was handed
// on; the sink's.
absl::Status EncodeRecords(RawReader& reader, const EncodeOptions& options,
                           const Tokenizer& tokenizer,
                           const std::function<absl::Status(EncodedBatch&)>& sink);

// The part_bytes a reader for this tokenizer should have.
int64_t PartBytes(const Tokenizer& tokenizer);

}  // namespace ll
