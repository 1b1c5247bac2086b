#include "model/chat/chat_encoder.h"

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/chat/jinja/text.h"
#include "model/chat/special_tokens.h"

namespace ll {

ChatEncoder::ChatEncoder(MarkedTokenizer marked, std::unique_ptr<PromptTemplate> prompt_template)
    : marked_(std::move(marked)), template_(std::move(prompt_template)) {}

absl::StatusOr<std::unique_ptr<ChatEncoder>> ChatEncoder::Create(
    const std::string& prompt_template, std::shared_ptr<const Tokenizer> tokenizer,
    const std::string& model_folder) {
  LL_ASSIGN_OR_RETURN(const SpecialTokens tokens, ReadSpecialTokens(model_folder, *tokenizer));
  LL_ASSIGN_OR_RETURN(
      auto made,
      MakePromptTemplate(prompt_template.empty() ? "chat_template" : prompt_template, tokens));
  LL_RETURN_IF_ERROR(CheckMarks(*made, *tokenizer));
  LL_ASSIGN_OR_RETURN(auto marked, MarkedTokenizer::Create(std::move(tokenizer), tokens));
  std::unique_ptr<ChatEncoder> encoder(new ChatEncoder(std::move(marked), std::move(made)));
  LL_RETURN_IF_ERROR(encoder->FindStops());
  return encoder;
}

absl::Status ChatEncoder::FindStops() {
  const std::string answer = "answer";
  Record record;
  record.kind = Record::Kind::kMessages;
  record.messages = {{"user", "question"}, {"assistant", answer}};
  const auto prompt = template_->Format(record, record.messages);
  // A template that cannot tell answers from prompts may still ask; then EOS alone ends an answer.
  if (!prompt.ok() || prompt->trained.empty()) return absl::OkStatus();
  const auto [begin, end] = prompt->trained.back();
  const absl::string_view turn = absl::string_view(prompt->text).substr(begin, end - begin);
  const size_t at = turn.find(answer);
  if (at == turn.npos) return absl::OkStatus();
  const absl::string_view mark = jinja::Strip(turn.substr(at + answer.size()), true, true);
  if (mark.empty()) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, marked_.Encode(mark));
  if (ids.size() == 1) {
    stop_ids_ = ids;
  } else {
    stop_strings_ = {std::string(mark)};
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> ChatEncoder::Encode(
    const std::vector<ChatMessage>& messages) const {
  LL_ASSIGN_OR_RETURN(const Prompt prompt, template_->Ask(messages));
  if (template_->boundary() != Boundary::kSeparate) return marked_.Encode(prompt.text);
  // Prompts and answers were tokenized apart.
  std::vector<int32_t> ids;
  const auto append = [&](size_t begin, size_t end) -> absl::Status {
    if (begin == end) return absl::OkStatus();
    LL_ASSIGN_OR_RETURN(const std::vector<int32_t> part,
                        marked_.Encode(absl::string_view(prompt.text).substr(begin, end - begin)));
    ids.insert(ids.end(), part.begin(), part.end());
    return absl::OkStatus();
  };
  size_t at = 0;
  for (const auto& [begin, end] : prompt.trained) {
    LL_RETURN_IF_ERROR(append(at, begin));
    LL_RETURN_IF_ERROR(append(begin, end));
    at = end;
  }
  LL_RETURN_IF_ERROR(append(at, prompt.text.size()));
  return ids;
}

}  // namespace ll
