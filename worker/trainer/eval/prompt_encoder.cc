#include "worker/trainer/eval/prompt_encoder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/chat/chat_encoder.h"

namespace ll {

absl::StatusOr<PromptEncoder> PromptEncoder::Open(const std::string& folder, int64_t vocab_size) {
  PromptEncoder out;
  out.folder_ = folder;
  auto tokenizer = OpenTokenizer(folder);
  if (!tokenizer.ok()) {
    absl::Status status = Annotate(tokenizer.status(), "tokenizer");
    SetErrorField(status, "tokenizer");
    SetErrorHint(status,
                 "put tokenizer.json or tokenizer.model into the model's folder, or name one with "
                 "--tokenizer");
    return status;
  }
  out.tokenizer_ = *std::move(tokenizer);
  if (out.tokenizer_->vocab_size() > vocab_size) {
    return MakeFieldError({"tokenizer",
                           absl::StrCat("ids below the model's vocabulary of ", vocab_size),
                           absl::StrCat("a vocabulary of ", out.tokenizer_->vocab_size()),
                           "give the tokenizer the model was trained with"});
  }
  LL_ASSIGN_OR_RETURN(out.special_, ReadSpecialTokens(folder, *out.tokenizer_));
  return out;
}

absl::StatusOr<std::vector<int32_t>> PromptEncoder::Encode(absl::string_view text) const {
  LL_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer_->Encode(text));
  if (special_.adds_bos && tokenizer_->bos_id) ids.insert(ids.begin(), *tokenizer_->bos_id);
  return ids;
}

absl::StatusOr<std::vector<int32_t>> PromptEncoder::EncodeChat(absl::string_view message) const {
  LL_ASSIGN_OR_RETURN(const auto encoder,
                      ChatEncoder::Create(/*prompt_template=*/"", tokenizer_, folder_));
  return encoder->Encode({{"user", std::string(message)}});
}

}  // namespace ll
