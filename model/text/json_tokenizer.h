// A tokenizer.json with a BPE model. The pipeline of Encode, in the order of the `tokenizers`
// library: added tokens in the raw text → normalizer → added tokens in the normalised text →
// pre_tokenizer → BPE.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/text/added_tokens.h"
#include "model/text/bpe.h"
#include "model/text/decoder.h"
#include "model/text/pre_tokenizer.h"
#include "model/text/split_rules.h"
#include "model/text/tokenizer.h"
#include "model/text/word_cache.h"

namespace ll {

class JsonTokenizer : public Tokenizer {
 public:
  // `json_text` is the whole file. Errors do not name the file: the caller annotates.
  static absl::StatusOr<std::unique_ptr<JsonTokenizer>> Parse(const std::string& json_text);

  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const override;
  std::string Decode(absl::Span<const int32_t> ids) const override;
  bool SplitsAtLines() const override { return rules_.at_lines; }
  int64_t vocab_size() const override { return static_cast<int64_t>(tokens_.size()); }
  const std::string& hash() const override { return hash_; }
  // The id of a token's exact text, added tokens included.
  std::optional<int32_t> IdOf(const std::string& token) const;

 private:
  struct Token {
    std::string text;
    bool present = false, special = false;
  };
  JsonTokenizer(Bpe bpe, std::vector<AddedToken> raw, std::vector<AddedToken> normalized)
      : bpe_(std::move(bpe)),
        raw_added_(std::move(raw)),
        normalized_added_(std::move(normalized)) {}
  static absl::StatusOr<std::unique_ptr<JsonTokenizer>> ParseFields(const std::string& json_text);
  // The text between two added tokens; `first`: at the front of the whole text.
  absl::Status EncodeNormalized(absl::string_view text, bool first,
                                std::vector<int32_t>& out) const;
  absl::Status EncodePieces(absl::string_view text, bool first, std::vector<int32_t>& out) const;

  Bpe bpe_;
  AddedTokenMatcher raw_added_, normalized_added_;
  std::vector<NormalizerStep> normalizer_;
  std::vector<PreTokenizerStep> pre_tokenizer_;
  std::vector<DecoderStep> decoder_;
  bool has_decoder_ = false;
  std::vector<Token> tokens_;  // by id
  std::string hash_;
  SplitRules rules_;
  const uint64_t cache_owner_ = TokenizerCaches::NewOwner();
};

}  // namespace ll
