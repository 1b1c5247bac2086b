// What model/chat makes of conversations, as JSON lines, for check_chat.py to judge.
//
//   chat_driver render FOLDER              {"messages": […], "add_generation_prompt": b} ->
//   {"text"} chat_driver encode FOLDER TEMPLATE     {"kind", "instruction", "input", "output",
//   "messages",
//                [MAX_LENGTH TRUNCATION]   …} -> {"ids", "loss_spans"}
// A line that is refused gives {"error"}.
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "base/status_macros.h"
#include "model/chat/jinja/template.h"
#include "model/chat/sft_encoder.h"
#include "model/chat/special_tokens.h"
#include "model/text/tokenizer.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using json = nlohmann::ordered_json;

jinja::Value MessagesValue(const json& messages) {
  jinja::List list;
  for (const json& message : messages) {
    jinja::Dict dict;
    for (const auto& [key, value] : message.items())
      dict.Set(key, jinja::Value::String(value.get<std::string>()));
    list.push_back(jinja::Value::Of(std::move(dict)));
  }
  return jinja::Value::Of(std::move(list));
}

absl::StatusOr<json> RenderLine(const jinja::Template& parsed, const SpecialTokens& tokens,
                                const json& line) {
  jinja::Dict globals;
  for (const auto& [name, text] : tokens.texts) globals.Set(name, jinja::Value::String(text));
  globals.Set("messages", MessagesValue(line["messages"]));
  globals.Set("add_generation_prompt", jinja::Value::Bool(line["add_generation_prompt"]));
  LL_ASSIGN_OR_RETURN(const jinja::Rendered rendered, parsed.Render(globals));
  return json{{"text", rendered.text}};
}

absl::StatusOr<json> EncodeLine(const SftEncoder& encoder, const json& line) {
  Record record;
  record.kind = line["kind"] == "messages" ? Record::Kind::kMessages
                : line["kind"] == "pair"   ? Record::Kind::kPair
                                           : Record::Kind::kInstruction;
  record.instruction = line.value("instruction", "");
  record.input = line.value("input", "");
  record.output = line.value("output", "");
  for (const json& message : line.value("messages", json::array()))
    record.messages.push_back({message["role"], message["content"]});
  LL_ASSIGN_OR_RETURN(const SftSample sample, encoder.Encode(record));
  return json{{"ids", sample.ids}, {"loss_spans", sample.loss_spans}};
}

absl::Status Run(int argc, char** argv) {
  const std::string mode = argv[1], folder = argv[2];
  LL_ASSIGN_OR_RETURN(std::shared_ptr<const Tokenizer> tokenizer, OpenTokenizer(folder));
  LL_ASSIGN_OR_RETURN(const SpecialTokens tokens, ReadSpecialTokens(folder, *tokenizer));
  std::unique_ptr<jinja::Template> parsed;
  std::unique_ptr<SftEncoder> encoder;
  if (mode == "render") {
    LL_ASSIGN_OR_RETURN(parsed, jinja::Template::Parse(tokens.chat_template));
  } else {
    SftOptions options;
    options.prompt_template = argv[3];
    if (argc > 5) {
      options.max_seq_length = std::atoll(argv[4]);
      options.truncation = argv[5];
    }
    LL_ASSIGN_OR_RETURN(encoder, SftEncoder::Create(options, tokenizer, folder));
  }
  for (std::string line; std::getline(std::cin, line);) {
    const json request = json::parse(line);
    const auto answer =
        parsed != nullptr ? RenderLine(*parsed, tokens, request) : EncodeLine(*encoder, request);
    std::cout << (answer.ok() ? *answer : json{{"error", std::string(answer.status().message())}})
              << "\n";
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const absl::Status status = ll::Run(argc, argv);
  if (!status.ok()) std::cerr << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
