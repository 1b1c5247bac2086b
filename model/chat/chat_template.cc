#include "model/chat/chat_template.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/chat/jinja/template.h"
#include "model/chat/jinja/text.h"

namespace ll {
namespace {

jinja::Value MessageValue(const ChatMessage& message) {
  jinja::Dict dict;
  dict.Set("role", jinja::Value::String(message.role));
  dict.Set("content", jinja::Value::String(message.content));
  return jinja::Value::Of(std::move(dict));
}

class ChatTemplatePrompt : public PromptTemplate {
 public:
  ChatTemplatePrompt(const SpecialTokens& tokens, std::unique_ptr<jinja::Template> parsed)
      : parsed_(std::move(parsed)), eos_(tokens.Text("eos_token")) {
    for (const auto& [name, text] : tokens.texts) globals_.Set(name, jinja::Value::String(text));
    for (const char* name : {"tools", "documents"}) globals_.Set(name, jinja::Value::MakeNone());
  }

  absl::StatusOr<Prompt> Format(const Record& record,
                                const std::vector<ChatMessage>& messages) const override {
    jinja::List values;
    for (const ChatMessage& message : messages) values.push_back(MessageValue(message));
    LL_ASSIGN_OR_RETURN(jinja::Rendered whole, Render(values, values.size(), false));
    Prompt prompt{std::move(whole.text), {}};
    if (parsed_->marks_generation()) {
      prompt.trained = std::move(whole.generated);
    } else {
      LL_RETURN_IF_ERROR(FindAnswers(messages, values, prompt));
    }
    if (prompt.trained.empty())
      return absl::InvalidArgumentError("the chat template prints no answer to train on");
    return prompt;
  }
  Boundary boundary() const override { return Boundary::kOverlap; }

  absl::StatusOr<Prompt> Ask(const std::vector<ChatMessage>& messages) const override {
    if (messages.empty() || messages.back().role != "user")
      return absl::InvalidArgumentError("expected a message of the user at the end");
    jinja::List values;
    for (const ChatMessage& message : messages) values.push_back(MessageValue(message));
    LL_ASSIGN_OR_RETURN(jinja::Rendered rendered, Render(values, values.size(), true));
    return Prompt{std::move(rendered.text), {}};
  }

 private:
  // The first `count` messages.
  absl::StatusOr<jinja::Rendered> Render(const jinja::List& messages, size_t count,
                                         bool add_generation_prompt) const {
    jinja::Dict globals = globals_;
    globals.Set("messages",
                jinja::Value::Of(jinja::List(
                    messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(count))));
    globals.Set("add_generation_prompt", jinja::Value::Bool(add_generation_prompt));
    auto rendered = parsed_->Render(globals);
    return rendered.ok() ? rendered : Annotate(rendered.status(), "chat template");
  }

  absl::Status FindAnswers(const std::vector<ChatMessage>& messages, const jinja::List& values,
                           Prompt& prompt) const {
    for (size_t i = 0; i < messages.size(); ++i) {
      if (messages[i].role != "assistant") continue;
      const bool last = i + 1 == messages.size();
      LL_ASSIGN_OR_RETURN(const jinja::Rendered before, Render(values, i, true));
      jinja::Rendered with;
      if (!last) {
        LL_ASSIGN_OR_RETURN(with, Render(values, i + 1, false));
      }
      const absl::string_view end = last ? prompt.text : with.text;
      if (!absl::StartsWith(end, before.text) || !absl::StartsWith(prompt.text, end)) {
        return absl::InvalidArgumentError(
            "the chat template prints earlier turns otherwise once later ones follow, so the "
            "answers cannot be told from the prompt; use a template with {% generation %} marks, "
            "or another prompt_template");
      }
      AddAnswer(messages[i].content, before.text.size(), end.size(), prompt);
    }
    return absl::OkStatus();
  }

  // Bytes [begin, end) of the text are an answer and what closes its turn.
  void AddAnswer(const std::string& answer, size_t begin, size_t end, Prompt& prompt) const {
    const absl::string_view core = jinja::Strip(answer, true, true);
    const absl::string_view turn = absl::string_view(prompt.text).substr(begin, end - begin);
    const size_t at = turn.find(core);
    const absl::string_view tail = turn.substr(at == turn.npos ? 0 : at + core.size());
    const absl::string_view mark = jinja::Strip(tail, false, true);
    if (jinja::Strip(mark, true, false).empty() && end == prompt.text.size()) {
      prompt.text += eos_;
      end = prompt.text.size();
    } else if (!mark.empty()) {
      end -= tail.size() - mark.size();
    }
    if (begin < end) prompt.trained.emplace_back(begin, end);
  }

  const std::unique_ptr<jinja::Template> parsed_;
  const std::string eos_;
  jinja::Dict globals_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PromptTemplate>> MakeChatTemplatePrompt(
    const SpecialTokens& tokens) {
  if (tokens.chat_template.empty()) {
    return MakeFieldError({"prompt_template", "a chat template in the model's folder", "none",
                           "name one of the built-in templates, or add chat_template.jinja"});
  }
  auto parsed = jinja::Template::Parse(tokens.chat_template);
  if (!parsed.ok()) {
    return FieldStatus(
        absl::StatusCode::kInvalidArgument, "prompt_template",
        absl::StrCat("the folder's chat template is not understood: ", parsed.status().message()),
        "name one of the built-in templates");
  }
  return std::make_unique<ChatTemplatePrompt>(tokens, *std::move(parsed));
}

}  // namespace ll
