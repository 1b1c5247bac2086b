#include "model/text/split_rules.h"

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/text/unicode.h"

namespace ll {
namespace {

using nlohmann::json;

constexpr absl::string_view kMark = "\xE2\x96\x81";  // ▁

// Patterns of Llama-3 and of Qwen2. Of each it holds that no match has a space, or a letter after a
// newline, behind a character that is not white space.
constexpr absl::string_view kKnownPatterns[] = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
};

std::string Text(const json& object, const char* member) {
  const auto it = object.find(member);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

// The steps of a section: the parts of a Sequence, or the section itself.
std::vector<json> Steps(const json& root, const char* section, const char* parts) {
  const auto it = root.find(section);
  if (it == root.end() || it->is_null()) return {};
  if (Text(*it, "type") != "Sequence") return {*it};
  std::vector<json> out;
  for (const json& part : it->value(parts, json::array())) out.push_back(part);
  return out;
}

// Steps that look at one character at a time, or at the front of the text alone.
bool NormalizerIsKnown(const std::vector<json>& steps) {
  return std::all_of(steps.begin(), steps.end(), [](const json& step) {
    const std::string type = Text(step, "type");
    if (type == "NFC" || type == "Prepend") return true;
    return type == "Replace" && step.contains("pattern") && step["pattern"].is_object() &&
           Text(step["pattern"], "String") == " " && Text(step, "content") == kMark;
  });
}

struct Boundaries {
  bool known = true;
  // A step ends pieces there whatever the vocabulary is.
  bool at_spaces = false, at_marks = false, at_lines = false;
};

Boundaries PreTokenizerBoundaries(const std::vector<json>& steps) {
  Boundaries out;
  for (const json& step : steps) {
    const std::string type = Text(step, "type");
    if (type == "Digits") continue;
    if (type == "ByteLevel") {
      if (step.value("use_regex", true)) out.at_spaces = out.at_lines = true;
      if (!out.at_spaces) return {false};  // its vocabulary spells spaces in another way
    } else if (type == "Split") {
      const std::string pattern = step.contains("pattern") ? Text(step["pattern"], "Regex") : "";
      const bool known = std::find(std::begin(kKnownPatterns), std::end(kKnownPatterns), pattern) !=
                         std::end(kKnownPatterns);
      if (!known || Text(step, "behavior") != "Isolated" || step.value("invert", false))
        return {false};
      out.at_spaces = out.at_lines = true;
    } else if (type == "Metaspace") {
      if (step.value("replacement", std::string(kMark)) != kMark) return {false};
      // Pieces may reach over lines; over spaces only where it does not split.
      if (step.value("split", true)) out.at_spaces = out.at_marks = true;
    } else {
      return {false};
    }
  }
  return out;
}

// The model sees no unknown characters, which it may fuse across any cut.
bool EverythingIsKnown(const json& model, const absl::flat_hash_map<std::string, int32_t>& vocab) {
  if (!model.value("fuse_unk", false) || Text(model, "unk_token").empty()) return true;
  return model.value("byte_fallback", false) && vocab.contains("<0x00>") &&
         vocab.contains("<0xFF>");
}

}  // namespace

void VocabularyReach::Add(absl::string_view token) {
  for (absl::string_view space : {absl::string_view(" "), kMark}) {
    for (size_t at = token.find(space); at != absl::string_view::npos;
         at = token.find(space, at + 1)) {
      const absl::string_view before = token.substr(0, at);
      if (!before.empty() && !absl::EndsWith(before, " ") && !absl::EndsWith(before, kMark)) {
        over_spaces = true;
      }
    }
  }
  if (token.size() > 1 && absl::StrContains(token, "\n")) over_newlines = true;
  // Bytes spelled out, and more: which ones does not matter.
  if (absl::StartsWith(token, "<0x") && token.size() > 6) over_spaces = over_newlines = true;
}

SplitRules FindSplitRules(const json& root, const absl::flat_hash_map<std::string, int32_t>& vocab,
                          const std::vector<AddedToken>& added) {
  SplitRules rules;
  const json& model = root["model"];
  const Boundaries pieces = PreTokenizerBoundaries(Steps(root, "pre_tokenizer", "pretokenizers"));
  if (!pieces.known) return rules;
  // Whole pieces are looked up, so they must end at a cut by themselves.
  if (model.value("ignore_merges", false) && !(pieces.at_spaces && pieces.at_lines)) return rules;
  if (!EverythingIsKnown(model, vocab)) return rules;
  VocabularyReach reach;
  for (const auto& [token, id] : vocab) reach.Add(token);
  rules.at_spaces = pieces.at_spaces || !reach.over_spaces;
  // The patterns take ▁ for one more sign.
  rules.at_marks = pieces.at_marks || (!pieces.at_spaces && !reach.over_spaces);
  const bool plain_tokens = std::all_of(added.begin(), added.end(), [](const AddedToken& t) {
    return !t.lstrip && !t.rstrip && !absl::StrContains(t.content, "\n");
  });
  rules.at_lines = plain_tokens && NormalizerIsKnown(Steps(root, "normalizer", "normalizers")) &&
                   (pieces.at_lines || !reach.over_newlines);
  return rules;
}

size_t FirstWord(absl::string_view text, bool marks) {
  for (size_t at = 1; at < text.size(); ++at) {
    const char c = text[at];
    if (c != ' ' && !(marks && c == kMark[0] && absl::StartsWith(text.substr(at), kMark))) continue;
    const auto before = static_cast<unsigned char>(text[at - 1]);
    if (before > ' ' && before < 0x7F) return at;
    if (before < 0x80) continue;  // white space and controls
    size_t start = at - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    if (absl::StartsWith(text.substr(start), kMark)) continue;
    size_t next = start;
    if (!IsWhiteSpace(NextCodePoint(text, next))) return at;
  }
  return text.size();
}

}  // namespace ll
