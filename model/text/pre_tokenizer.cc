#include "model/text/pre_tokenizer.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "model/text/regex.h"
#include "model/text/unicode.h"

namespace ll {
namespace {

using nlohmann::json;

// What becomes of the text a pattern matches; names as in the file.
enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

// GPT-2's pattern (Radford et al. 2019), which ByteLevel uses where use_regex is set.
constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Span {
  size_t begin, end;
  bool match;
};

// Matches and the text between them, in order, covering `text`.
absl::Status FindSpans(const Regex& regex, absl::string_view text, bool invert,
                       std::vector<Span>& out) {
  out.clear();
  size_t at = 0, begin = 0, end = 0;
  while (at < text.size()) {
    LL_ASSIGN_OR_RETURN(bool found, regex.Find(text, at, &begin, &end));
    if (!found) break;
    if (begin > at) out.push_back({at, begin, invert});
    out.push_back({begin, end, !invert});
    at = end;
  }
  if (at < text.size()) out.push_back({at, text.size(), invert});
  return absl::OkStatus();
}

void Merge(Behavior behavior, std::vector<Span>& spans) {
  std::vector<Span> out;
  bool glue = false;  // kMergedWithNext: the last span is a match that waits for its successor
  for (const Span& s : spans) {
    const bool to_previous =
        !out.empty() &&
        ((behavior == Behavior::kMergedWithPrevious && s.match && !out.back().match) ||
         (behavior == Behavior::kContiguous && s.match == out.back().match) ||
         (behavior == Behavior::kMergedWithNext && glue && !s.match));
    if (behavior == Behavior::kRemoved && s.match) continue;
    if (to_previous) {
      out.back().end = s.end;
      if (behavior != Behavior::kContiguous) out.back().match = true;
    } else {
      out.push_back(s);
    }
    glue = s.match;
  }
  spans = std::move(out);
}

// Applies `regex` to every piece.
absl::Status SplitPieces(const Regex& regex, Behavior behavior, bool invert, Pieces& pieces) {
  std::vector<Piece> out;
  out.reserve(pieces.list.size() * 4);
  std::vector<Span> spans;
  for (const Piece& piece : pieces.list) {
    LL_RETURN_IF_ERROR(FindSpans(regex, piece.text, invert, spans));
    if (behavior != Behavior::kIsolated) Merge(behavior, spans);
    for (const Span& s : spans) {
      out.push_back({piece.text.substr(s.begin, s.end - s.begin), piece.first && s.begin == 0});
    }
  }
  pieces.list = std::move(out);
  return absl::OkStatus();
}

absl::StatusOr<PreTokenizerStep> SplitStep(const std::string& pattern, Behavior behavior,
                                           bool invert) {
  LL_ASSIGN_OR_RETURN(auto regex, Regex::Compile(pattern));
  return PreTokenizerStep([regex, behavior, invert](Pieces& pieces) {
    return SplitPieces(*regex, behavior, invert, pieces);
  });
}

std::string QuoteRegex(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (absl::string_view("\\^$.|?*+()[]{}#-").find(c) != absl::string_view::npos)
      out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

absl::StatusOr<PreTokenizerStep> ParseSplit(const json& s) {
  static const std::pair<const char*, Behavior> kNames[] = {
      {"Isolated", Behavior::kIsolated},
      {"Removed", Behavior::kRemoved},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  LL_ASSIGN_OR_RETURN(std::string name, JsonText(s, "behavior"));
  const json pattern = s.value("pattern", json());
  if (!pattern.is_object()) return absl::InvalidArgumentError("Split: no pattern");
  std::string source;
  if (pattern.contains("String")) {
    LL_ASSIGN_OR_RETURN(std::string text, JsonText(pattern, "String"));
    source = QuoteRegex(text);
  } else {
    LL_ASSIGN_OR_RETURN(source, JsonText(pattern, "Regex"));
  }
  for (const auto& [known, behavior] : kNames) {
    if (name == known) return SplitStep(source, behavior, s.value("invert", false));
  }
  return absl::InvalidArgumentError(absl::StrCat("Split: the behavior ", name, " is not known"));
}

void MapBytes(Pieces& pieces, bool add_prefix_space) {
  const auto& alphabet = ByteLevelAlphabet();
  for (Piece& piece : pieces.list) {
    std::string mapped;
    mapped.reserve(piece.text.size() * 2);
    if (add_prefix_space && !absl::StartsWith(piece.text, " ")) mapped = alphabet[' '];
    for (char c : piece.text) mapped += alphabet[static_cast<unsigned char>(c)];
    piece.text = pieces.Own(std::move(mapped));
  }
}

absl::StatusOr<PreTokenizerStep> ParseByteLevel(const json& s, GrowthBudget& growth) {
  const bool prefix = s.value("add_prefix_space", true);
  LL_RETURN_IF_ERROR(growth.Spend(prefix ? 4 : 2));  // a byte becomes a character of up to two
  if (!s.value("use_regex", true)) {
    return PreTokenizerStep([prefix](Pieces& pieces) {
      MapBytes(pieces, prefix);
      return absl::OkStatus();
    });
  }
  LL_ASSIGN_OR_RETURN(auto regex, Regex::Compile(kGpt2Pattern));
  return PreTokenizerStep([regex, prefix](Pieces& pieces) -> absl::Status {
    if (prefix) {  // before the split, as the space belongs to the first word
      for (Piece& piece : pieces.list) {
        if (!absl::StartsWith(piece.text, " "))
          piece.text = pieces.Own(absl::StrCat(" ", piece.text));
      }
    }
    LL_RETURN_IF_ERROR(SplitPieces(*regex, Behavior::kIsolated, false, pieces));
    MapBytes(pieces, false);
    return absl::OkStatus();
  });
}

absl::StatusOr<PreTokenizerStep> ParseMetaspace(const json& s, GrowthBudget& growth) {
  const std::string mark = s.value("replacement", std::string("\xE2\x96\x81"));
  LL_RETURN_IF_ERROR(growth.Spend(1 + static_cast<double>(mark.size())));
  std::string scheme = s.value("prepend_scheme", std::string("always"));
  if (!s.value("add_prefix_space", true)) scheme = "never";
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return absl::InvalidArgumentError(
        absl::StrCat("Metaspace: the prepend_scheme ", scheme, " is not known"));
  }
  LL_ASSIGN_OR_RETURN(auto regex, Regex::Compile(QuoteRegex(mark)));
  const bool split = s.value("split", true);
  return PreTokenizerStep([mark, scheme, regex, split](Pieces& pieces) -> absl::Status {
    for (Piece& piece : pieces.list) {
      std::string text = absl::StrReplaceAll(piece.text, {{" ", mark}});
      const bool wanted = scheme == "always" || (scheme == "first" && piece.first);
      if (wanted && !absl::StartsWith(text, mark)) text = mark + text;
      piece.text = pieces.Own(std::move(text));
    }
    return split ? SplitPieces(*regex, Behavior::kMergedWithNext, false, pieces) : absl::OkStatus();
  });
}

absl::StatusOr<PreTokenizerStep> ParseOne(const std::string& type, const json& s,
                                          GrowthBudget& growth) {
  if (type == "ByteLevel") return ParseByteLevel(s, growth);
  if (type == "Metaspace") return ParseMetaspace(s, growth);
  LL_RETURN_IF_ERROR(growth.Spend(1));
  if (type == "Split") return ParseSplit(s);
  if (type == "Digits") {
    return SplitStep(s.value("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)",
                     Behavior::kIsolated, false);
  }
  if (type == "WhitespaceSplit") return SplitStep(R"(\s+)", Behavior::kRemoved, false);
  return absl::InvalidArgumentError(
      absl::StrCat("pre_tokenizer: the type ", type, " is not known"));
}

}  // namespace

absl::StatusOr<std::vector<PreTokenizerStep>> ParsePreTokenizer(const json& section,
                                                                GrowthBudget& growth) {
  std::vector<PreTokenizerStep> out;
  if (section.is_null()) return out;
  if (!section.is_object()) return absl::InvalidArgumentError("pre_tokenizer: expected an object");
  LL_ASSIGN_OR_RETURN(std::string type, JsonText(section, "type"));
  if (type == "Sequence") {
    for (const json& part : section.value("pretokenizers", json::array())) {
      LL_ASSIGN_OR_RETURN(auto steps, ParsePreTokenizer(part, growth));
      out.insert(out.end(), steps.begin(), steps.end());
    }
    return out;
  }
  LL_ASSIGN_OR_RETURN(PreTokenizerStep step, ParseOne(type, section, growth));
  out.push_back(std::move(step));
  return out;
}

const std::array<std::string, 256>& ByteLevelAlphabet() {
  static const auto& table = *[] {
    auto* t = new std::array<std::string, 256>;
    uint32_t next = 256;  // bytes without a printable character of their own get U+0100, U+0101, …
    for (uint32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      AppendUtf8(printable ? b : next++, (*t)[b]);
    }
    return t;
  }();
  return table;
}

}  // namespace ll
