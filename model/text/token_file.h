// Token files: a flat run of little-endian token ids with no header, as LongLoRA's validation.bin,
// and beside F.bin the sidecar F.bin.json:
//   {"dtype": "uint16", "token_count": 12, "vocab_size": 49152, "tokenizer_hash": "…", "documents":
//   [[0, 5], [5, 12]], "loss_spans": [[3, 5], [9, 12]]}
// dtype is uint16 or uint32; documents are [start, end) in tokens; loss_spans are the tokens that
// are targets in supervised fine-tuning, likewise (absent: every token is one); only dtype is
// required. A file without a sidecar is read as uint16.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ll {

// [start, end) pairs of token positions, rising and without overlap.
using TokenSpans = std::vector<std::pair<int64_t, int64_t>>;

// A mapped token file. Immutable, thread-safe.
class TokenFile {
 public:
  // Checks the size against the sidecar and, where vocab_size > 0, every id against it (one pass
  // over the file). Errors name the path, what was expected and what was found.
  static absl::StatusOr<std::shared_ptr<const TokenFile>> Open(const std::string& path,
                                                               int64_t vocab_size);
  ~TokenFile();
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  int64_t size() const { return size_; }  // tokens
  // Copies tokens [begin, begin + out.size()), which must lie within the file.
  void Read(int64_t begin, absl::Span<int32_t> out) const;
  // [start, end) of every document, rising, covering no more than the file; empty where the sidecar
  // has none.
  const TokenSpans& documents() const { return documents_; }
  // The tokens that are targets, in positions of the file; absent: all of them (pre-training).
  const std::optional<TokenSpans>& loss_spans() const { return loss_spans_; }
  // Of the tokenizer that made the file; empty where not known.
  const std::string& tokenizer_hash() const { return tokenizer_hash_; }
  const std::string& path() const { return path_; }

 private:
  TokenFile() = default;
  absl::Status ReadSidecar(int64_t file_bytes, int64_t& token_count);
  absl::Status CheckIds(int64_t vocab_size) const;

  std::string path_;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  int64_t size_ = 0;
  int width_ = 2;  // bytes a token
  TokenSpans documents_;
  std::optional<TokenSpans> loss_spans_;
  std::string tokenizer_hash_;
};

}  // namespace ll
