// Writing token files (token_file.h), in a way that a killed process may continue.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/text/token_file.h"
#include "model/text/token_journal.h"

namespace ll {

// Writes F.bin document by document into F.bin.partial. Not thread-safe; a second writer of the
// same file is refused. The file appears whole and synced with Finish(). Without it nothing is left
// behind, except by a resumable writer that was neither finished nor discarded.
class TokenFileWriter {
 public:
  // ids are uint16 where vocab_size <= 65,536, else uint32.
  static absl::StatusOr<TokenFileWriter> Create(const std::string& path, int64_t vocab_size,
                                                std::string tokenizer_hash);
  // As Create, and goes on behind the last Commit() of a writer that was given the same
  // `fingerprint` (of the input and everything that shapes the ids) and did not come to its end.
  static absl::StatusOr<TokenFileWriter> CreateResumable(const std::string& path,
                                                         int64_t vocab_size,
                                                         std::string tokenizer_hash,
                                                         const std::string& fingerprint);
  TokenFileWriter(TokenFileWriter&& other) noexcept;
  TokenFileWriter& operator=(TokenFileWriter&&) = delete;
  ~TokenFileWriter();

  // Errors: an id outside the vocabulary; a write that failed.
  absl::Status AppendDocument(absl::Span<const int32_t> ids) { return AppendPart(ids, true); }
  // The same with the document's targets, in tokens of the document: [start, end) pairs, rising,
  // inside it (an invariant, not an input). A file has them for all of its documents or for none.
  absl::Status AppendDocument(absl::Span<const int32_t> ids, const TokenSpans& loss_spans);
  // A document that comes in parts; `last` ends it.
  absl::Status AppendPart(absl::Span<const int32_t> ids, bool last);

  // Resumable writers only: puts everything so far on the disk, with the caller's `state`.
  absl::Status Commit(const std::string& state);
  // The state of the last commit; empty for a new file.
  const std::string& committed_state() const { return state_; }
  // What an earlier writer left was of another fingerprint or damaged, and was dropped.
  bool dropped_partial() const { return dropped_partial_; }

  absl::Status Finish();
  // Ends without a result and leaves nothing behind.
  void Discard();

  int64_t size() const { return size_; }  // tokens so far
  int64_t documents() const { return static_cast<int64_t>(documents_.size()); }

 private:
  TokenFileWriter() = default;
  static absl::StatusOr<TokenFileWriter> Open(const std::string& path, int64_t vocab_size,
                                              std::string tokenizer_hash);
  absl::Status Restore(const std::string& fingerprint);
  absl::Status Append(absl::Span<const int32_t> ids, bool last);
  absl::Status Flush();
  std::string Sidecar() const;

  std::string path_, tokenizer_hash_, state_;
  std::unique_ptr<TokenJournal> journal_;  // resumable writers only
  bool dropped_partial_ = false;
  int fd_ = -1;
  int64_t vocab_size_ = 0, size_ = 0, open_document_ = -1;
  std::string buffer_;
  TokenSpans documents_;
  std::optional<TokenSpans> loss_spans_;
  size_t journaled_documents_ = 0, journaled_spans_ = 0;
};

}  // namespace ll
