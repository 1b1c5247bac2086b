#include "model/chat/special_tokens.h"

#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using nlohmann::json;

absl::StatusOr<json> ReadObject(const std::string& path) {
  if (!FileExists(path)) return json::object();
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  auto root = ParseJsonObject(text);
  return root.ok() ? root : Annotate(root.status(), path);
}

json Member(const json& object, const char* name) {
  return object.is_object() && object.contains(name) ? object[name] : json();
}

// "</s>" or {"content": "</s>", …}.
std::string TokenText(const json& entry) {
  if (entry.is_string()) return entry.get<std::string>();
  const json content = Member(entry, "content");
  return content.is_string() ? content.get<std::string>() : "";
}

// The text of an added token of tokenizer.json, for folders that name special tokens by id alone.
std::string AddedTokenText(const json& tokenizer, std::optional<int32_t> id) {
  const json added = Member(tokenizer, "added_tokens");
  for (const json& token : added.is_array() ? added : json::array()) {
    if (id && Member(token, "id") == *id) return TokenText(token);
  }
  return "";
}

// Whether a TemplateProcessing, alone or in a Sequence, begins single texts with a special token.
bool PutsTokenInFront(const json& post_processor) {
  const json processors = Member(post_processor, "processors");
  for (const json& inner : processors.is_array() ? processors : json::array()) {
    if (PutsTokenInFront(inner)) return true;
  }
  const json single = Member(post_processor, "single");
  return single.is_array() && !single.empty() && single[0].is_object() &&
         single[0].contains("SpecialToken");
}

std::string ChatTemplateOf(const json& config) {
  const json entry = Member(config, "chat_template");
  if (entry.is_string()) return entry.get<std::string>();
  for (const json& named : entry.is_array() ? entry : json::array()) {
    const json text = Member(named, "template");
    if (Member(named, "name") == "default" && text.is_string()) return text.get<std::string>();
  }
  return "";
}

}  // namespace

std::string SpecialTokens::Text(const std::string& name) const {
  const auto found = texts.find(name);
  return found != texts.end() ? found->second : "";
}

absl::StatusOr<SpecialTokens> ReadSpecialTokens(const std::string& path,
                                                const Tokenizer& tokenizer) {
  const size_t slash = path.rfind('/');
  const std::string folder = IsDirectory(path)            ? path
                             : slash == std::string::npos ? "."
                                                          : path.substr(0, slash);
  LL_ASSIGN_OR_RETURN(const json config, ReadObject(folder + "/tokenizer_config.json"));
  LL_ASSIGN_OR_RETURN(const json map, ReadObject(folder + "/special_tokens_map.json"));
  LL_ASSIGN_OR_RETURN(const json file, ReadObject(folder + "/tokenizer.json"));
  const bool sentencepiece = file.empty();
  SpecialTokens out;
  for (const std::string name : {"bos_token", "eos_token", "pad_token", "unk_token"}) {
    std::string text = TokenText(Member(config, name.c_str()));
    if (text.empty()) text = TokenText(Member(map, name.c_str()));
    const std::optional<int32_t> id = name == "bos_token"   ? tokenizer.bos_id
                                      : name == "eos_token" ? tokenizer.eos_id
                                                            : std::nullopt;
    if (text.empty()) text = AddedTokenText(file, id);
    // The names SentencePiece gives them.
    if (text.empty() && sentencepiece && id) text = name == "bos_token" ? "<s>" : "</s>";
    if (!text.empty()) out.texts[name] = text;
  }
  const json adds = Member(config, "add_bos_token");
  out.adds_bos = adds.is_boolean()
                     ? adds.get<bool>()
                     : sentencepiece || PutsTokenInFront(Member(file, "post_processor"));
  out.adds_bos = out.adds_bos && tokenizer.bos_id.has_value();
  if (FileExists(folder + "/chat_template.jinja")) {
    LL_ASSIGN_OR_RETURN(out.chat_template, ReadFile(folder + "/chat_template.jinja"));
  } else {
    out.chat_template = ChatTemplateOf(config);
  }
  return out;
}

}  // namespace ll
