// The model folder's own Jinja template as a PromptTemplate.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "model/chat/prompt.h"

namespace ll {

// What is trained: the template's {% generation %} blocks where it has them; else, for each answer,
// what rendering the conversation up to and with it adds to rendering the conversation before it
// with add_generation_prompt, without the white space behind the turn's closing mark. A template
// that closes its last answer with no mark at all gets the EOS behind it.
//
// Errors name prompt_template: no template in the folder, or one the interpreter does not
// understand. Format's: what the template refuses; a template that prints earlier turns otherwise
// once later ones follow.
absl::StatusOr<std::unique_ptr<PromptTemplate>> MakeChatTemplatePrompt(const SpecialTokens& tokens);

}  // namespace ll
