#include "model/text/decoder.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "model/text/pre_tokenizer.h"
#include "model/text/unicode.h"

namespace ll {
namespace {

using nlohmann::json;
using Tokens = std::vector<std::string>;

void Fuse(Tokens& tokens) { tokens = {absl::StrJoin(tokens, "")}; }

// Characters of the byte-level alphabet back to bytes. A token with another character (an added
// one) stands as it is.
void ByteLevel(Tokens& tokens) {
  static const auto& bytes = *[] {
    auto* m = new std::map<uint32_t, char>;
    for (size_t b = 0; b < 256; ++b) {
      size_t at = 0;
      (*m)[NextCodePoint(ByteLevelAlphabet()[b], at)] = static_cast<char>(b);
    }
    return m;
  }();
  std::string out;
  for (const std::string& token : tokens) {
    std::string text;
    for (size_t at = 0; at < token.size();) {
      auto it = bytes.find(NextCodePoint(token, at));
      if (it == bytes.end()) {
        text = token;
        break;
      }
      text.push_back(it->second);
    }
    out += text;
  }
  tokens = {ReplaceInvalidUtf8(out)};
}

// The byte of a "<0xAB>" token, or -1.
int ByteOf(const std::string& token) {
  if (token.size() != 6 || token.compare(0, 3, "<0x") != 0 || token[5] != '>') return -1;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  const int high = digit(token[3]), low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// Runs of byte tokens become their text; a run that is not valid UTF-8 one U+FFFD a byte.
void ByteFallback(Tokens& tokens) {
  Tokens out;
  std::string run;
  const auto flush = [&] {
    if (run.empty()) return;
    if (IsValidUtf8(run)) {
      out.push_back(run);
    } else {
      out.insert(out.end(), run.size(), "\xEF\xBF\xBD");
    }
    run.clear();
  };
  for (std::string& token : tokens) {
    if (const int byte = ByteOf(token); byte >= 0) {
      run.push_back(static_cast<char>(byte));
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  tokens = std::move(out);
}

absl::StatusOr<int> SmallCount(const json& s, const char* member) {
  const json value = s.value(member, json(0u));
  if (!value.is_number_unsigned() || value.get<uint64_t>() > 1'000'000)
    return absl::InvalidArgumentError(absl::StrCat(member, ": expected a small count"));
  return value.get<int>();
}

absl::StatusOr<DecoderStep> ParseStrip(const json& s) {
  LL_ASSIGN_OR_RETURN(std::string content, JsonText(s, "content"));
  if (content.empty()) return absl::InvalidArgumentError("Strip: no content");
  LL_ASSIGN_OR_RETURN(const int start, SmallCount(s, "start"));
  LL_ASSIGN_OR_RETURN(const int stop, SmallCount(s, "stop"));
  return DecoderStep([content, start, stop](Tokens& tokens) {
    for (std::string& token : tokens) {
      for (int i = 0; i < start && token.compare(0, content.size(), content) == 0; ++i)
        token.erase(0, content.size());
      for (int i = 0; i < stop && token.size() >= content.size() &&
                      token.compare(token.size() - content.size(), content.size(), content) == 0;
           ++i) {
        token.resize(token.size() - content.size());
      }
    }
  });
}

absl::StatusOr<DecoderStep> ParseReplace(const json& s, GrowthBudget& growth) {
  LL_ASSIGN_OR_RETURN(std::string content, JsonText(s, "content"));
  LL_ASSIGN_OR_RETURN(std::string from, JsonText(s.value("pattern", json::object()), "String"));
  if (from.empty()) return absl::InvalidArgumentError("Replace: an empty pattern");
  LL_RETURN_IF_ERROR(
      growth.Spend(static_cast<double>(content.size()) / static_cast<double>(from.size())));
  return DecoderStep([from, content](Tokens& tokens) {
    for (std::string& token : tokens) token = absl::StrReplaceAll(token, {{from, content}});
  });
}

DecoderStep MetaspaceStep(const std::string& mark, bool strip_first) {
  return [mark, strip_first](Tokens& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool strip = i == 0 && strip_first && tokens[i].compare(0, mark.size(), mark) == 0;
      tokens[i] =
          absl::StrReplaceAll(strip ? tokens[i].substr(mark.size()) : tokens[i], {{mark, " "}});
    }
  };
}

absl::StatusOr<DecoderStep> ParseOne(const std::string& type, const json& s, GrowthBudget& growth) {
  if (type == "Replace") return ParseReplace(s, growth);
  LL_RETURN_IF_ERROR(growth.Spend(1));
  if (type == "ByteLevel") return DecoderStep(ByteLevel);
  if (type == "ByteFallback") return DecoderStep(ByteFallback);
  if (type == "Fuse") return DecoderStep(Fuse);
  if (type == "Strip") return ParseStrip(s);
  if (type == "Metaspace") {
    const bool prefix = s.value("add_prefix_space", true) &&
                        s.value("prepend_scheme", "always") != std::string("never");
    return MetaspaceStep(s.value("replacement", std::string("\xE2\x96\x81")), prefix);
  }
  return absl::InvalidArgumentError(absl::StrCat("decoder: the type ", type, " is not known"));
}

}  // namespace

absl::StatusOr<std::vector<DecoderStep>> ParseDecoder(const json& section, GrowthBudget& growth) {
  std::vector<DecoderStep> out;
  if (section.is_null()) return out;
  if (!section.is_object()) return absl::InvalidArgumentError("decoder: expected an object");
  LL_ASSIGN_OR_RETURN(std::string type, JsonText(section, "type"));
  if (type == "Sequence") {
    for (const json& part : section.value("decoders", json::array())) {
      LL_ASSIGN_OR_RETURN(auto steps, ParseDecoder(part, growth));
      out.insert(out.end(), steps.begin(), steps.end());
    }
    return out;
  }
  LL_ASSIGN_OR_RETURN(DecoderStep step, ParseOne(type, section, growth));
  out.push_back(std::move(step));
  return out;
}

}  // namespace ll
