// Pre-training rows out of a token file: row r is tokens [r N, (r + 1) N), the last one shorter,
// visited in RowOrder's order.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/llama.h"
#include "model/text/token_file.h"
#include "worker/trainer/data/row_order.h"
#include "worker/trainer/data/row_source.h"

namespace ll {

// Tokens [begin, end) of the file as one document, int64, each labelled with its successor in the
// range.
Row ReadRow(const TokenFile& file, int64_t begin, int64_t end);

struct LoaderOptions {
  int64_t row_tokens = 0;  // N, at least 2
  uint64_t seed = 0;
  bool shuffle = true;
  // Cuts attention at documents and gives a document's first token no target; needs the file's
  // sidecar.
  bool document_boundaries = false;
};

class Loader : public RowSource {
 public:
  // Errors name the field: a file shorter than two tokens, no documents in the sidecar where their
  // boundaries are wanted.
  static absl::StatusOr<std::unique_ptr<Loader>> Create(std::shared_ptr<const TokenFile> file,
                                                        const LoaderOptions& options);

  // A tail of a single token, which has no target, is left out.
  int64_t rows() const override { return order_.rows(); }
  int64_t TokensOf(int64_t index) override;
  int64_t TargetsOf(int64_t index) override;
  Row Load(int64_t index) override;

 private:
  Loader(std::shared_ptr<const TokenFile> file, const LoaderOptions& options, int64_t rows,
         std::vector<int64_t> boundaries);
  std::pair<int64_t, int64_t> Span(int64_t index);  // [begin, end) in the file

  // Where documents begin or end strictly inside (begin, end).
  std::vector<int64_t> BoundariesWithin(int64_t begin, int64_t end) const;

  const std::shared_ptr<const TokenFile> file_;
  const int64_t row_tokens_;
  const std::vector<int64_t> boundaries_;  // sorted; empty without document_boundaries
  RowOrder order_;
};

}  // namespace ll
