// Texts of retrieval tests to ids and back, by the tokenizer of a model's folder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/chat/special_tokens.h"
#include "model/text/tokenizer.h"

namespace ll {

// Immutable, thread-safe.
class PromptEncoder {
 public:
  // `folder`: a model folder or a tokenizer's file. Errors name the tokenizer: none there, one that
  // is not understood, one whose ids the model's vocabulary does not hold.
  static absl::StatusOr<PromptEncoder> Open(const std::string& folder, int64_t vocab_size);

  // BOS in front where the tokenizer puts one.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text) const;
  // `message` as a user's first, in the folder's chat template, up to where the answer begins.
  absl::StatusOr<std::vector<int32_t>> EncodeChat(absl::string_view message) const;
  bool has_chat_template() const { return !special_.chat_template.empty(); }

  std::string Decode(absl::Span<const int32_t> ids) const { return tokenizer_->Decode(ids); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  PromptEncoder() = default;

  std::string folder_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  SpecialTokens special_;
};

}  // namespace ll
