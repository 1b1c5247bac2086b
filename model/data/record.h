// One record of training data, before it becomes tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ll {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant" (ShareGPT's "human" and "gpt" are renamed)
  std::string content;
};

struct Record {
  // kText: pre-training text. kInstruction: Alpaca's and LongAlpaca's instruction, input (may be
  // empty), output. kPair: LongQLoRA's input and output. kMessages: a conversation.
  enum class Kind { kText, kInstruction, kPair, kMessages };
  Kind kind = Kind::kText;
  std::string text;                        // kText
  std::string instruction, input, output;  // kInstruction; kPair (instruction empty)
  std::vector<ChatMessage> messages;       // kMessages
  // Where it stands, for messages: the file as given, 1-based line (or element of a JSON list).
  std::string file;
  int64_t line = 0;
};

}  // namespace ll
