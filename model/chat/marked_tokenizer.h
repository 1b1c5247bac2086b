// Tokenizes a text with marked parts, so that each part's tokens are known.
//
// A Tokenizer tells no offsets. Where a part begins follows from tokenizing the text in front of it
// alone; and because tokens never reach across a special token, only from the last BOS or EOS on,
// which keeps a conversation of many turns linear. A SentencePiece tokenizer reads special tokens
// as plain text: BOS and EOS become their ids here, as Hugging Face's tokenizer does it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/chat/special_tokens.h"
#include "model/text/tokenizer.h"

namespace ll {

// Immutable, thread-safe.
class MarkedTokenizer {
 public:
  // Errors name the tokenizer: none of an EOS.
  static absl::StatusOr<MarkedTokenizer> Create(std::shared_ptr<const Tokenizer> tokenizer,
                                                const SpecialTokens& tokens);
  MarkedTokenizer(MarkedTokenizer&&) = default;
  MarkedTokenizer& operator=(MarkedTokenizer&&) = default;

  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const;

  // What the tokens of text[0, at) have to do with those of the whole text.
  struct Border {
    int64_t prefix_tokens = 0;  // how many the text in front has, tokenized alone
    int64_t common_tokens = 0;  // how many of them begin the whole's
  };
  struct Marked {
    std::vector<int32_t> ids;  // of the whole text
    std::vector<Border> borders;
  };
  // Rising byte positions `at` in `text`.
  absl::StatusOr<Marked> EncodeWithBorders(absl::string_view text,
                                           const std::vector<size_t>& at) const;

 private:
  struct Cut {
    std::string text;  // of a special token
    int32_t id = 0;
  };
  MarkedTokenizer() = default;
  // Where the next special token at or behind `from` begins, and which; npos and null at the end.
  std::pair<size_t, const Cut*> NextCut(absl::string_view text, size_t from) const;
  // A text with no special token but, possibly, at its start.
  absl::StatusOr<std::vector<int32_t>> EncodeChunk(absl::string_view chunk) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<Cut> cuts_;
  bool reads_specials_ = false;  // the tokenizer itself turns their text into ids
};

}  // namespace ll
