// An instruction or a conversation to tokens, with the tokens that are trained marked.
//
// Every assistant turn of a conversation is trained, its closing end-of-sequence token included;
// nothing else is. The prompt templates, by name:
//   longlora       LongAlpaca's prompt: "[INST]{instruction}[/INST]" without spaces; with an input,
//                  Llama-2's system prompt, the instruction, "\n" and the input in the brackets.
//                  One exchange. What LongLoRA's supervised-fine-tune.py trains.
//   llama2         Llama-2-chat: "[INST] <<SYS>>\n…\n<</SYS>>\n\n… [/INST] … </s>", several turns.
//   vicuna         LongQLoRA's: a sentence for the system, "USER: … ASSISTANT: …</s>", no BOS.
//   chatml         "<|im_start|>role\n…<|im_end|>\n"; the tokenizer must have both marks.
//   chat_template  the model folder's own Jinja template.
// Reading order: sft_encoder.h (this), prompt.h (records to text with trained parts),
// chat_template.h, jinja/template.h, marked_tokenizer.h (text to tokens).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/chat/marked_tokenizer.h"
#include "model/data/record.h"
#include "model/text/tokenizer.h"

namespace ll {

struct SftOptions {
  std::string prompt_template = "longlora";
  // Longest sample in tokens; 0: no limit.
  int64_t max_seq_length = 0;
  // What becomes of a longer sample. "right" cuts its end (LongLoRA; a cut answer has no EOS any
  // more); "left" cuts the prompt in front of the first answer, and its end only where that is not
  // enough; "drop" gives an empty SftSample; "error" refuses.
  std::string truncation = "right";
};

struct SftSample {
  std::vector<int32_t> ids;
  // [start, end) of `ids` that are targets, each predicted by the token before it; rising, not
  // empty, never from 0. Empty only where `ids` is: a dropped sample.
  std::vector<std::pair<int64_t, int64_t>> loss_spans;
  int64_t truncated_targets = 0;  // targets lost to truncation
};

class PromptTemplate;
struct Prompt;

// Everything an encoder's samples depend on besides the records, as one text: two encoders with
// the same text give the same samples. Errors: those of ReadSpecialTokens.
absl::StatusOr<std::string> SftIdentity(const SftOptions& options, const Tokenizer& tokenizer,
                                        const std::string& model_folder);

// Immutable, thread-safe.
class SftEncoder {
 public:
  // `model_folder` holds the chat template (chat_template.jinja, or `chat_template` in
  // tokenizer_config.json) and the names of the special tokens. Errors name the key
  // (prompt_template, truncation): an unknown name, a tokenizer without EOS or without a template's
  // marks, a Jinja template that is missing or uses what the interpreter does not know.
  static absl::StatusOr<std::unique_ptr<SftEncoder>> Create(
      const SftOptions& options, std::shared_ptr<const Tokenizer> tokenizer,
      const std::string& model_folder);
  ~SftEncoder();

  // Errors are InvalidArgument and begin with "record.file:record.line: ": plain text instead of a
  // sample, an empty answer, roles in an order the template refuses, no target left after
  // truncation, a sample longer than max_seq_length with truncation "error".
  absl::StatusOr<SftSample> Encode(const Record& record) const;

 private:
  SftEncoder(SftOptions options, std::shared_ptr<const Tokenizer> tokenizer, MarkedTokenizer marked,
             std::unique_ptr<PromptTemplate> prompt_template);
  absl::StatusOr<SftSample> EncodeRecord(const Record& record) const;
  absl::StatusOr<SftSample> TokenizeApart(const Prompt& prompt) const;
  absl::StatusOr<SftSample> TokenizeJointly(const Prompt& prompt) const;
  absl::Status Truncate(SftSample& sample) const;

  const SftOptions options_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  const MarkedTokenizer marked_;
  const std::unique_ptr<PromptTemplate> template_;
};

}  // namespace ll
