#include "worker/trainer/generate/chat_model.h"

#include "base/field_error.h"
#include "base/status_macros.h"

namespace ll {

absl::StatusOr<std::unique_ptr<ChatModel>> ChatModel::Open(const TextGeneratorOptions& options,
                                                           std::string prompt_template) {
  LL_ASSIGN_OR_RETURN(auto generator, TextGenerator::Open(options));
  return std::unique_ptr<ChatModel>(
      new ChatModel(std::move(generator), std::move(prompt_template)));
}

absl::Status ChatModel::PrepareMessages() {
  if (encoder_ != nullptr) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(encoder_, ChatEncoder::Create(prompt_template_, generator_->tokenizer(),
                                                    generator_->tokenizer_path()));
  return absl::OkStatus();
}

absl::StatusOr<Answer> ChatModel::AnswerMessages(
    const std::vector<ChatMessage>& messages, AnswerOptions options,
    absl::FunctionRef<bool(absl::string_view)> on_text) {
  LL_RETURN_IF_ERROR(PrepareMessages());
  auto ids = encoder_->Encode(messages);
  if (!ids.ok()) return Annotate(ids.status(), "messages");
  auto& eos = options.generation.eos_ids;
  eos.insert(eos.end(), encoder_->stop_ids().begin(), encoder_->stop_ids().end());
  options.stop_strings.insert(options.stop_strings.end(), encoder_->stop_strings().begin(),
                              encoder_->stop_strings().end());
  return generator_->Complete(*ids, options, on_text);
}

absl::StatusOr<Answer> ChatModel::AnswerRequest(
    const ChatRequest& request, absl::FunctionRef<bool(absl::string_view)> on_text) {
  if (!request.messages.empty()) return AnswerMessages(request.messages, request.options, on_text);
  LL_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, generator_->EncodePrompt(request.prompt));
  return generator_->Complete(ids, request.options, on_text);
}

}  // namespace ll
