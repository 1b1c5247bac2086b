// Records to prompt text with the parts that are trained. No tokens here.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/chat/special_tokens.h"
#include "model/data/record.h"
#include "model/text/tokenizer.h"

namespace ll {

struct Prompt {
  // Special tokens stand in it as text.
  std::string text;
  // [start, end) in bytes of `text`: what is trained; rising, not empty.
  std::vector<std::pair<size_t, size_t>> trained;
};

// How the borders between prompt and answer become borders between tokens.
enum class Boundary {
  // Everything is tokenized as one text; the prompt is as many tokens as the prompt alone has
  // (LongLoRA's supervised-fine-tune.py).
  kCount,
  // Everything is tokenized as one text; a token that holds a part of the answer is trained.
  kOverlap,
  // Prompt and answer are tokenized apart (LongQLoRA).
  kSeparate,
};

// Immutable, thread-safe.
class PromptTemplate {
 public:
  virtual ~PromptTemplate() = default;
  // `messages` is Conversation(record), which is what most templates look at. Errors are
  // InvalidArgument, one clause.
  virtual absl::StatusOr<Prompt> Format(const Record& record,
                                        const std::vector<ChatMessage>& messages) const = 0;
  virtual Boundary boundary() const = 0;
  // The text in front of the assistant's next answer; `messages` end with the user's. `trained`
  // holds the earlier answers, where the template tells. Errors as Format's.
  virtual absl::StatusOr<Prompt> Ask(const std::vector<ChatMessage>& messages) const;
  // Special tokens, besides EOS, that the tokenizer must know as one token each.
  virtual std::vector<std::string> marks() const { return {}; }
};

// By name, see sft_encoder.h. Errors name prompt_template.
absl::StatusOr<std::unique_ptr<PromptTemplate>> MakePromptTemplate(const std::string& name,
                                                                   const SpecialTokens& tokens);

// Whether `tokenizer` knows each of the template's marks as one token. Errors name prompt_template.
absl::Status CheckMarks(const PromptTemplate& prompt_template, const Tokenizer& tokenizer);

// A record as a conversation: an optional system message, then turns of user and assistant, the
// last the assistant's; no answer is empty. Instruction and input are one user turn, "\n" between
// them. Errors are one clause: plain text, an empty answer, another order of roles.
absl::StatusOr<std::vector<ChatMessage>> Conversation(const Record& record);

}  // namespace ll
