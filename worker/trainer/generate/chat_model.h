// A model one can talk with: what `ll-trainer chat` and jobs of kind generate share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "model/chat/chat_encoder.h"
#include "worker/trainer/generate/chat_request.h"
#include "worker/trainer/generate/text_generator.h"

namespace ll {

// Not thread-safe.
class ChatModel {
 public:
  // TextGenerator::Open's errors. The template is looked for when the first messages come, so that
  // a model without one can continue prompts.
  static absl::StatusOr<std::unique_ptr<ChatModel>> Open(const TextGeneratorOptions& options,
                                                         std::string prompt_template);

  // Errors: the model folder has no chat template and none was named, and ChatEncoder's.
  absl::Status PrepareMessages();
  // The assistant's next turn; `on_text` as for TextGenerator::Complete. Errors: what the template
  // refuses (field `messages`), and those of PrepareMessages and TextGenerator::Complete.
  absl::StatusOr<Answer> AnswerMessages(const std::vector<ChatMessage>& messages,
                                        AnswerOptions options,
                                        absl::FunctionRef<bool(absl::string_view)> on_text);
  // Messages or a prompt.
  absl::StatusOr<Answer> AnswerRequest(const ChatRequest& request,
                                       absl::FunctionRef<bool(absl::string_view)> on_text);

  TextGenerator& generator() { return *generator_; }

 private:
  ChatModel(std::unique_ptr<TextGenerator> generator, std::string prompt_template)
      : generator_(std::move(generator)), prompt_template_(std::move(prompt_template)) {}

  std::unique_ptr<TextGenerator> generator_;
  const std::string prompt_template_;
  std::unique_ptr<ChatEncoder> encoder_;
};

}  // namespace ll
