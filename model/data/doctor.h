// What a set of training data holds, before it is trained on.
#pragma once

#include <cstdint>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/data/encode_records.h"
#include "model/text/tokenizer.h"
#include "nlohmann/json.hpp"

namespace ll {

struct DoctorOptions {
  std::vector<std::string> inputs;  // see FindInputFiles
  DocumentSplit split = DocumentSplit::kFile;
  EncodeOptions encode;
  int64_t context_length = 0;  // 0: no question about it
  int preview = 1;             // samples to show, the first ones
};

struct DoctorReport {
  int64_t files = 0;
  int64_t records = 0;  // usable ones: with ids
  int64_t tokens = 0;
  bool supervised = false;
  int64_t targets = 0;            // supervised: tokens with a loss
  int64_t truncated_targets = 0;  // lost to truncation, in `truncated_records`
  int64_t truncated_records = 0;
  int64_t without_target = 0;       // records without a single answer
  int64_t dropped = 0;              // by the encoder, for their length
  int64_t bad_records = 0;          // not usable
  int64_t replaced = 0;             // with bytes that are not UTF-8
  int64_t duplicates = 0;           // records whose text came before
  int64_t with_special_inside = 0;  // text that spells BOS or EOS: a document that seems to end
  std::map<std::string, int64_t> kinds, roles;

  // Lengths in tokens: quantiles (0: none), and counts by powers of two.
  int64_t shortest = 0, median = 0, p90 = 0, p99 = 0, longest = 0;
  double mean = 0;
  struct Bucket {
    int64_t from = 0, to = 0, records = 0;  // [from, to)
  };
  std::vector<Bucket> histogram;
  int64_t context_length = 0, shorter_than_context = 0, longer_than_context = 0;

  int64_t vocab_size = 0, used_ids = 0;

  // The first few of each, as "FILE:LINE: …".
  std::vector<std::string> bad_examples, duplicate_examples;

  struct Run {
    std::string text;
    bool trained = false;
  };
  struct Preview {
    std::string place;
    int64_t tokens = 0;
    std::vector<Run> runs;
  };
  std::vector<Preview> previews;
};

// One pass over the data; memory grows with the number of records (about 30 bytes each), not with
// their size. Bad records are counted, never an error. Errors: inputs that cannot be read.
absl::StatusOr<DoctorReport> ExamineData(const DoctorOptions& options, const Tokenizer& tokenizer);

nlohmann::ordered_json DoctorJson(const DoctorReport& report);
// For people. Trained tokens are green with `color`, else between ⟦ and ⟧.
void PrintDoctorReport(const DoctorReport& report, bool color, std::ostream& out);

}  // namespace ll
