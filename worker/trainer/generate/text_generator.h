// A model folder (and adapter) that turns text into text: tokenizer, model and the ids that end an
// answer. What `generate` and `chat` share.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/generation/generator.h"
#include "model/text/tokenizer.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/load_model.h"

namespace ll {

struct TextGeneratorOptions {
  ModelRequest model;
  std::string tokenizer;  // folder or file; empty: the model folder's
  bool strict = false;    // refuse what goes beyond the trained context instead of warning
  // Gets one sentence a warning. Not empty.
  std::function<void(absl::string_view)> warn;
};

struct AnswerOptions {
  GenerationOptions generation;  // eos_ids: beside the model's own
  std::vector<std::string> stop_strings;
  bool ignore_eos = false;
};

struct Answer {
  std::string text;  // without the stop string that ended it
  Completion completion;
  std::string finish_reason;  // "eos", "stop" (a stop string), "length", "interrupted"
};
// {text, ids, prompt_tokens, reused_tokens, new_tokens, prefill_seconds, decode_seconds,
// tokens_per_second, finish_reason}; tokens_per_second is that of the tokens behind the first.
nlohmann::ordered_json ToJson(const Answer& answer);

inline constexpr int64_t kMaxNewTokens = 16'000'000;

// Not thread-safe.
class TextGenerator {
 public:
  // Reads config and tokenizer; the model itself comes with the first prompt. Errors name the
  // folder or the file: those of ResolveModel, no tokenizer, a tokenizer with more ids than the
  // model has.
  static absl::StatusOr<std::unique_ptr<TextGenerator>> Open(const TextGeneratorOptions& options);

  // The ids of a text that the model is to continue, with the BOS in front where the model's
  // tokenizer puts one. Errors name `prompt`: an empty one.
  absl::StatusOr<std::vector<int32_t>> EncodePrompt(absl::string_view text) const;

  // Loads the model, unless it is loaded, and makes room for a prompt and answer of `tokens`.
  // Errors: FailedPrecondition naming context_size for more tokens than the model was trained for
  // (with strict; a warning, once, without), ResourceExhausted naming the bytes that cache and
  // model need and those the machine has.
  absl::Status Prepare(int64_t tokens);

  // `on_text` gets, once a token, the text that has become certain: whole characters only, never
  // the beginning of a stop string, often nothing. It returns false to end the answer. Errors:
  // Prepare's, Generator::Complete's.
  absl::StatusOr<Answer> Complete(absl::Span<const int32_t> prompt, const AnswerOptions& options,
                                  absl::FunctionRef<bool(absl::string_view)> on_text);

  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }
  const ModelFolders& folders() const { return folders_; }
  // Where the tokenizer and its templates come from.
  const std::string& tokenizer_path() const { return tokenizer_path_; }

 private:
  TextGenerator() = default;
  absl::Status CheckContext(int64_t tokens);
  absl::Status CheckMemory(int64_t tokens) const;

  bool strict_ = false, warned_ = false, adds_bos_ = false;
  std::function<void(absl::string_view)> warn_;
  ModelFolders folders_;
  std::string tokenizer_path_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<int32_t> eos_ids_;
  std::unique_ptr<Llama> model_;
  std::optional<Generator> generator_;
  int64_t room_tokens_ = 0;  // what memory was checked for
};

// The ids that end an answer, as transformers finds them: generation_config.json's eos_token_id
// (one or a list), else config.json's, else the tokenizer's; none of them: empty. Errors name the
// file.
absl::StatusOr<std::vector<int32_t>> ReadEosIds(const std::string& model_folder,
                                                const LlamaConfig& config,
                                                const Tokenizer& tokenizer);

}  // namespace ll
