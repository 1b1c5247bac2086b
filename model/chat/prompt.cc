#include "model/chat/prompt.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/chat/chat_template.h"
#include "model/chat/jinja/text.h"

namespace ll {
namespace {

// Meta's default system prompt of Llama-2-chat, which LongAlpaca's prompt with an input contains;
// models are trained on its exact characters.
constexpr char kLlama2System[] =
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, "
    "while being safe.  Your answers should not include any harmful, unethical, racist, sexist, "
    "toxic, dangerous, or illegal content. Please ensure that your responses are socially "
    "unbiased and positive in nature.\n\nIf a question does not make any sense, or is not "
    "factually coherent, explain why instead of answering something not correct. If you don't "
    "know the answer to a question, please don't share false information.\n";
// Vicuna's, likewise.
constexpr char kVicunaSystem[] =
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions.";

// As Python's str.strip(), which the templates' authors used.
std::string Trim(const std::string& text) { return std::string(jinja::Strip(text, true, true)); }

void AppendTrained(Prompt& prompt, absl::string_view text) {
  const size_t start = prompt.text.size();
  absl::StrAppend(&prompt.text, text);
  prompt.trained.emplace_back(start, prompt.text.size());
}

class LongLoraPrompt : public PromptTemplate {
 public:
  explicit LongLoraPrompt(const SpecialTokens& tokens)
      : bos_(tokens.adds_bos ? tokens.Text("bos_token") : ""), eos_(tokens.Text("eos_token")) {}

  absl::StatusOr<Prompt> Format(const Record& record,
                                const std::vector<ChatMessage>& messages) const override {
    if (messages.size() != 2) {
      return absl::InvalidArgumentError(
          "prompt_template longlora takes one instruction and one answer, without a system "
          "message; for conversations use llama2 or chat_template");
    }
    Prompt prompt{bos_, {}};
    if (record.kind == Record::Kind::kInstruction && !record.input.empty()) {
      absl::StrAppend(&prompt.text, "[INST] <<SYS>>\n", kLlama2System, "<</SYS>> \n\n ",
                      record.instruction, " \n", record.input, " [/INST]");
    } else {
      absl::StrAppend(&prompt.text, "[INST]", messages[0].content, "[/INST]");
    }
    AppendTrained(prompt, absl::StrCat(messages[1].content, eos_));
    return prompt;
  }
  Boundary boundary() const override { return Boundary::kCount; }

 private:
  const std::string bos_, eos_;
};

class Llama2Prompt : public PromptTemplate {
 public:
  explicit Llama2Prompt(const SpecialTokens& tokens)
      : bos_(tokens.Text("bos_token")), eos_(tokens.Text("eos_token")) {}

  absl::StatusOr<Prompt> Format(const Record& record,
                                const std::vector<ChatMessage>& messages) const override {
    Prompt prompt;
    std::string system;
    for (const ChatMessage& message : messages) {
      if (message.role == "system") {
        system = absl::StrCat("<<SYS>>\n", message.content, "\n<</SYS>>\n\n");
      } else if (message.role == "user") {
        absl::StrAppend(&prompt.text, bos_, "[INST] ", Trim(system + message.content), " [/INST]");
        system.clear();
      } else {
        AppendTrained(prompt, absl::StrCat(" ", Trim(message.content), " ", eos_));
      }
    }
    return prompt;
  }
  Boundary boundary() const override { return Boundary::kOverlap; }

 private:
  const std::string bos_, eos_;
};

class VicunaPrompt : public PromptTemplate {
 public:
  explicit VicunaPrompt(const SpecialTokens& tokens) : eos_(tokens.Text("eos_token")) {}

  absl::StatusOr<Prompt> Format(const Record& record,
                                const std::vector<ChatMessage>& messages) const override {
    Prompt prompt{kVicunaSystem, {}};
    for (const ChatMessage& message : messages) {
      if (message.role == "system") {
        prompt.text = Trim(message.content);
      } else if (message.role == "user") {
        absl::StrAppend(&prompt.text, "\nUSER: ", Trim(message.content), "\nASSISTANT: ");
      } else {
        AppendTrained(prompt, absl::StrCat(Trim(message.content), eos_));
      }
    }
    return prompt;
  }
  Boundary boundary() const override { return Boundary::kSeparate; }

 private:
  const std::string eos_;
};

class ChatMlPrompt : public PromptTemplate {
 public:
  explicit ChatMlPrompt(const SpecialTokens& tokens)
      : bos_(tokens.adds_bos ? tokens.Text("bos_token") : "") {}

  absl::StatusOr<Prompt> Format(const Record& record,
                                const std::vector<ChatMessage>& messages) const override {
    Prompt prompt{bos_, {}};
    for (const ChatMessage& message : messages) {
      absl::StrAppend(&prompt.text, "<|im_start|>", message.role, "\n");
      if (message.role == "assistant") {
        AppendTrained(prompt, absl::StrCat(message.content, "<|im_end|>"));
      } else {
        absl::StrAppend(&prompt.text, message.content, "<|im_end|>");
      }
      absl::StrAppend(&prompt.text, "\n");
    }
    return prompt;
  }
  Boundary boundary() const override { return Boundary::kOverlap; }
  std::vector<std::string> marks() const override { return {"<|im_start|>", "<|im_end|>"}; }

 private:
  const std::string bos_;
};

absl::Status CheckTurns(const std::vector<ChatMessage>& messages) {
  const size_t first = !messages.empty() && messages[0].role == "system" ? 1 : 0;
  for (size_t i = first; i < messages.size(); ++i) {
    const char* expected = (i - first) % 2 == 0 ? "user" : "assistant";
    if (messages[i].role != expected) {
      return absl::InvalidArgumentError(absl::StrCat("expected message ", i + 1, " to be of the ",
                                                     expected, ", found \"",
                                                     messages[i].role.substr(0, 40), "\""));
    }
    if (messages[i].role == "assistant" && Trim(messages[i].content).empty())
      return absl::InvalidArgumentError("an answer is empty");
  }
  if (messages.empty() || messages.back().role != "assistant")
    return absl::InvalidArgumentError("expected an answer of the assistant at the end, found none");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Prompt> PromptTemplate::Ask(const std::vector<ChatMessage>& messages) const {
  Record record;
  record.kind = Record::Kind::kMessages;
  record.messages = messages;
  record.messages.push_back(
      {"assistant", "answer"});  // any will do: what is in front is the prompt
  LL_RETURN_IF_ERROR(CheckTurns(record.messages));
  LL_ASSIGN_OR_RETURN(Prompt prompt, Format(record, record.messages));
  prompt.text.resize(prompt.trained.back().first);
  prompt.trained.pop_back();
  return prompt;
}

absl::StatusOr<std::unique_ptr<PromptTemplate>> MakePromptTemplate(const std::string& name,
                                                                   const SpecialTokens& tokens) {
  if (name == "longlora") return std::make_unique<LongLoraPrompt>(tokens);
  if (name == "llama2") return std::make_unique<Llama2Prompt>(tokens);
  if (name == "vicuna") return std::make_unique<VicunaPrompt>(tokens);
  if (name == "chatml") return std::make_unique<ChatMlPrompt>(tokens);
  if (name == "chat_template") return MakeChatTemplatePrompt(tokens);
  return MakeFieldError({"prompt_template", "longlora, llama2, vicuna, chatml or chat_template",
                         absl::StrCat("\"", name.substr(0, 40), "\"")});
}

absl::Status CheckMarks(const PromptTemplate& prompt_template, const Tokenizer& tokenizer) {
  for (const std::string& mark : prompt_template.marks()) {
    LL_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.Encode(mark));
    if (ids.size() == 1) continue;
    return MakeFieldError({"prompt_template", absl::StrCat("a tokenizer that knows ", mark),
                           absl::StrCat("one that cuts it into ", ids.size(), " tokens"),
                           "take another prompt_template, or add the token to the model"});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ChatMessage>> Conversation(const Record& record) {
  std::vector<ChatMessage> messages;
  switch (record.kind) {
    case Record::Kind::kText:
      return absl::InvalidArgumentError(
          "expected an instruction or a conversation, found plain text");
    case Record::Kind::kInstruction:
    case Record::Kind::kPair: {
      std::vector<std::string> question;
      for (const std::string& part : {record.instruction, record.input}) {
        if (!part.empty()) question.push_back(part);
      }
      messages = {{"user", absl::StrJoin(question, "\n")}, {"assistant", record.output}};
      break;
    }
    case Record::Kind::kMessages:
      messages = record.messages;
      break;
  }
  LL_RETURN_IF_ERROR(CheckTurns(messages));
  return messages;
}

}  // namespace ll
