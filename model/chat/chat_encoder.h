// A conversation to the tokens in front of the assistant's next answer, by the templates of
// sft_encoder.h, as training made them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/chat/marked_tokenizer.h"
#include "model/chat/prompt.h"
#include "model/text/tokenizer.h"

namespace ll {

// Immutable, thread-safe.
class ChatEncoder {
 public:
  // `prompt_template` empty: the folder's own chat template, which must be there. Errors as
  // SftEncoder::Create's.
  static absl::StatusOr<std::unique_ptr<ChatEncoder>> Create(
      const std::string& prompt_template, std::shared_ptr<const Tokenizer> tokenizer,
      const std::string& model_folder);

  // An optional system message, then user and assistant in turn, the user's last. Errors are one
  // clause: another order, an empty earlier answer, what the template refuses.
  absl::StatusOr<std::vector<int32_t>> Encode(const std::vector<ChatMessage>& messages) const;

  // What closes an answer: a token, or, where it is cut into several, its text.
  const std::vector<int32_t>& stop_ids() const { return stop_ids_; }
  const std::vector<std::string>& stop_strings() const { return stop_strings_; }

 private:
  ChatEncoder(MarkedTokenizer marked, std::unique_ptr<PromptTemplate> prompt_template);
  absl::Status FindStops();

  const MarkedTokenizer marked_;
  const std::unique_ptr<PromptTemplate> template_;
  std::vector<int32_t> stop_ids_;
  std::vector<std::string> stop_strings_;
};

}  // namespace ll
