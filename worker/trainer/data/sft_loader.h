// Supervised rows out of a token file with loss_spans: a row is one sample at its own length, or,
// packed, several samples with attention cut between them, visited in RowOrder's order.
//
// There is no padding: a row of several samples is a row of several documents (Row::documents), so
// a sample's loss and gradients are those it has alone.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/text/token_file.h"
#include "worker/trainer/data/row_order.h"
#include "worker/trainer/data/row_source.h"

namespace ll {

// LongLoRA's attention group for a sample of `length` tokens (llama_attn_replace_sft.py): a quarter
// of it where 4096 divides it, else 8192.
int64_t LongLoraSftGroupTokens(int64_t length);

// First fit: items in their order, each into the first bin that has room. Returns the items of each
// bin. Every length is in [0, capacity]. O(n log n).
std::vector<std::vector<int32_t>> PackFirstFit(const std::vector<int64_t>& lengths,
                                               int64_t capacity);

struct SftLoaderOptions {
  int64_t row_tokens = 0;  // longest row
  uint64_t seed = 0;
  bool shuffle = true;
  bool packing = false;
  // Of samples longer than row_tokens, in a file that was packed with a larger limit: "right" cuts
  // them, "drop" leaves them out; "left" and "error" refuse the file.
  std::string truncation = "right";
  bool skip_bad_samples = false;  // a sample without a target: left out rather than refused
};

class SftLoader : public RowSource {
 public:
  // What was left out or cut is told in `warnings`. Errors name the field: a file without documents
  // or loss_spans, a sample that is refused (with its number), none that is left.
  static absl::StatusOr<std::unique_ptr<SftLoader>> Create(std::shared_ptr<const TokenFile> file,
                                                           const SftLoaderOptions& options,
                                                           std::vector<std::string>* warnings);

  int64_t rows() const override { return order_.rows(); }
  int64_t TokensOf(int64_t index) override;
  int64_t TargetsOf(int64_t index) override;
  Row Load(int64_t index) override;

 private:
  // Tokens [begin, end) of the file.
  struct Sample {
    int64_t begin = 0, end = 0;
    int64_t targets = 0;
    size_t first_span = 0;  // in the file's loss_spans
  };
  SftLoader(std::shared_ptr<const TokenFile> file, std::vector<Sample> samples,
            std::vector<std::vector<int32_t>> rows, const SftLoaderOptions& options);
  static absl::StatusOr<std::vector<Sample>> ReadSamples(const TokenFile& file,
                                                         const SftLoaderOptions& options,
                                                         std::vector<std::string>* warnings);

  const std::shared_ptr<const TokenFile> file_;
  const std::vector<Sample> samples_;
  const std::vector<std::vector<int32_t>> rows_;  // samples of each row
  RowOrder order_;
};

}  // namespace ll
