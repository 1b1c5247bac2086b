// SentencePiece models: reading one as a Tokenizer, and training one from text.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/text/sentencepiece_shim.h"
#include "model/text/tokenizer.h"
#include "model/text/word_cache.h"

namespace ll {

class SentencePieceTokenizer : public Tokenizer {
 public:
  // `serialized` is the whole .model file. Errors do not name the file: the caller annotates.
  static absl::StatusOr<std::unique_ptr<SentencePieceTokenizer>> Parse(
      const std::string& serialized);

  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const override;
  std::string Decode(absl::Span<const int32_t> ids) const override;
  bool SplitsAtLines() const override { return word_by_word_; }
  int64_t vocab_size() const override { return model_.size(); }
  const std::string& hash() const override { return hash_; }

 private:
  SentencePieceTokenizer() = default;
  absl::Status EncodeWhole(absl::string_view text, std::vector<int32_t>& out) const;
  // A word that is not at the front of the text.
  absl::Status EncodeWord(absl::string_view word, std::vector<int32_t>& out) const;
  SentencePieceModel model_;
  std::string hash_;
  // The ids of a text are those of its words, cut at spaces and around newlines.
  bool word_by_word_ = false;
  std::vector<int32_t> newline_;  // ids of a text that is one newline
  const uint64_t cache_owner_ = TokenizerCaches::NewOwner();
};

struct SentencePieceTraining {
  std::vector<std::string> inputs;  // text files, one sentence a line
  std::string output;               // the .model file to write
  int64_t vocab_size = 0;
  std::string type = "bpe";   // or "unigram"
  bool byte_fallback = true;  // no text is unknown, as Llama-2's tokenizer
  int threads = 1;
};
// Reproducible for one thread. Ids as Llama-2's: 0 <unk>, 1 <s>, 2 </s>; digits apart. Errors: an
// input that cannot be read, a vocabulary larger than the text gives.
absl::Status TrainSentencePiece(const SentencePieceTraining& training);

}  // namespace ll
