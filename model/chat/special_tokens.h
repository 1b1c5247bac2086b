// What a model's folder says about its special tokens, beyond what a Tokenizer holds.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "model/text/tokenizer.h"

namespace ll {

struct SpecialTokens {
  // Name ("bos_token", "eos_token", "pad_token", "unk_token") -> text; absent where the folder has
  // none.
  std::map<std::string, std::string> texts;
  // Whether tokenizing a prompt puts the BOS in front: tokenizer_config.json's add_bos_token, else
  // what the post-processor of tokenizer.json does, else true for a SentencePiece model.
  bool adds_bos = false;
  // The folder's Jinja template: chat_template.jinja, else tokenizer_config.json's `chat_template`
  // (the one named "default" where it is a list); empty where there is none.
  std::string chat_template;

  std::string Text(const std::string& name) const;  // "" where absent
};

// Reads tokenizer_config.json, special_tokens_map.json, tokenizer.json, config.json and
// chat_template.jinja of `folder` (or of the folder of a tokenizer file), as far as they are there.
// Errors: a file that is no JSON object.
absl::StatusOr<SpecialTokens> ReadSpecialTokens(const std::string& folder,
                                                const Tokenizer& tokenizer);

}  // namespace ll
