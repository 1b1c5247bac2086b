#include "model/text/json_tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/text/unicode.h"

namespace ll {
namespace {

using nlohmann::json;

// Ids are indices of a table; a hostile file must not make it huge.
constexpr int32_t kMaxId = 1 << 22;

absl::StatusOr<std::string> Normalize(const std::vector<NormalizerStep>& steps, std::string text) {
  for (const NormalizerStep& step : steps) {
    LL_ASSIGN_OR_RETURN(text, step(std::move(text)));
  }
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<JsonTokenizer>> JsonTokenizer::Parse(const std::string& json_text) {
  auto tokenizer = ParseFields(json_text);
  if (!tokenizer.ok()) return OneLine(tokenizer.status());  // messages quote names of the file
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<JsonTokenizer>> JsonTokenizer::ParseFields(
    const std::string& json_text) {
  LL_ASSIGN_OR_RETURN(const json root, ParseJsonObject(json_text));
  const auto section = [&](const char* name) { return root.contains(name) ? root[name] : json(); };
  GrowthBudget growth, decoded;
  try {
    LL_ASSIGN_OR_RETURN(Bpe bpe, Bpe::Parse(section("model")));
    LL_ASSIGN_OR_RETURN(std::vector<AddedToken> added, ParseAddedTokens(section("added_tokens")));
    LL_ASSIGN_OR_RETURN(auto normalizer, ParseNormalizer(section("normalizer"), growth));
    std::vector<AddedToken> raw, normalized;
    for (const AddedToken& t : added) {
      if (!t.normalized) {
        raw.push_back(t);
        continue;
      }
      AddedToken pattern = t;
      LL_ASSIGN_OR_RETURN(pattern.content, Normalize(normalizer, t.content));
      if (!pattern.content.empty()) normalized.push_back(pattern);
    }
    std::unique_ptr<JsonTokenizer> out(new JsonTokenizer(std::move(bpe), raw, normalized));
    out->normalizer_ = std::move(normalizer);
    LL_ASSIGN_OR_RETURN(out->pre_tokenizer_, ParsePreTokenizer(section("pre_tokenizer"), growth));
    LL_ASSIGN_OR_RETURN(out->decoder_, ParseDecoder(section("decoder"), decoded));
    out->has_decoder_ = !section("decoder").is_null();
    const auto put = [&](int32_t id, const std::string& text, bool special) -> absl::Status {
      if (id >= kMaxId)
        return absl::InvalidArgumentError(absl::StrCat("the id ", id, " is too large"));
      if (static_cast<size_t>(id) >= out->tokens_.size())
        out->tokens_.resize(static_cast<size_t>(id) + 1);
      out->tokens_[static_cast<size_t>(id)] = {text, true, special};
      return absl::OkStatus();
    };
    for (const auto& [text, id] : out->bpe_.vocab()) LL_RETURN_IF_ERROR(put(id, text, false));
    for (const AddedToken& t : added) LL_RETURN_IF_ERROR(put(t.id, t.content, t.special));
    out->rules_ = FindSplitRules(root, out->bpe_.vocab(), added);
    out->hash_ = Sha256Hex(json_text);
    return out;
  } catch (const json::exception& e) {  // a member of an unexpected type
    return absl::InvalidArgumentError(e.what());
  }
}

absl::Status JsonTokenizer::EncodePieces(absl::string_view text, bool first,
                                         std::vector<int32_t>& out) const {
  Pieces pieces;
  pieces.list.push_back({text, first});
  for (const PreTokenizerStep& step : pre_tokenizer_) LL_RETURN_IF_ERROR(step(pieces));
  // Of a word that will be looked up, the pieces need not be.
  const bool look_up = text.size() > WordCache::kMaxWordBytes;
  WordCache& cache = TokenizerCaches::OfThisThread(cache_owner_).pieces;
  for (const Piece& piece : pieces.list) {
    if (look_up && cache.Find(piece.text, out)) continue;
    const size_t begin = out.size();
    bpe_.Encode(piece.text, out);
    if (look_up) cache.Add(piece.text, absl::MakeConstSpan(out).subspan(begin));
  }
  return absl::OkStatus();
}

absl::Status JsonTokenizer::EncodeNormalized(absl::string_view text, bool first,
                                             std::vector<int32_t>& out) const {
  if (!rules_.at_spaces) return EncodePieces(text, first, out);
  WordCache& cache = TokenizerCaches::OfThisThread(cache_owner_).words;
  // The first word may get a prefix; the others start with a space, which every step leaves alone.
  size_t done = FirstWord(text, rules_.at_marks);
  LL_RETURN_IF_ERROR(EncodePieces(text.substr(0, done), first, out));
  while (done < text.size()) {
    const absl::string_view word = text.substr(done, FirstWord(text.substr(done), rules_.at_marks));
    done += word.size();
    if (cache.Find(word, out)) continue;
    const size_t begin = out.size();
    LL_RETURN_IF_ERROR(EncodePieces(word, false, out));
    cache.Add(word, absl::MakeConstSpan(out).subspan(begin));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> JsonTokenizer::Encode(absl::string_view text) const {
  std::string fixed;
  if (!IsValidUtf8(text)) {
    fixed = ReplaceInvalidUtf8(text);
    text = fixed;
  }
  std::vector<int32_t> out;
  for (const AddedTokenMatcher::Section& raw : raw_added_.Split(text)) {
    if (raw.id >= 0) {
      out.push_back(raw.id);
      continue;
    }
    const bool starts = raw.text.data() == text.data();
    std::string made;
    absl::string_view normal = raw.text;
    if (!normalizer_.empty()) {
      LL_ASSIGN_OR_RETURN(made, Normalize(normalizer_, std::string(raw.text)));
      normal = made;
    }
    for (const AddedTokenMatcher::Section& section : normalized_added_.Split(normal)) {
      if (section.id >= 0) {
        out.push_back(section.id);
      } else {
        const bool first = starts && section.text.data() == normal.data();
        LL_RETURN_IF_ERROR(EncodeNormalized(section.text, first, out));
      }
    }
  }
  return out;
}

std::string JsonTokenizer::Decode(absl::Span<const int32_t> ids) const {
  std::vector<std::string> texts;
  for (int32_t id : ids) {
    if (id < 0 || static_cast<size_t>(id) >= tokens_.size()) continue;
    const Token& token = tokens_[static_cast<size_t>(id)];
    if (token.present && !token.special) texts.push_back(token.text);
  }
  if (!has_decoder_) return absl::StrJoin(texts, " ");
  for (const DecoderStep& step : decoder_) step(texts);
  return absl::StrJoin(texts, "");
}

std::optional<int32_t> JsonTokenizer::IdOf(const std::string& token) const {
  for (size_t id = 0; id < tokens_.size(); ++id) {
    if (tokens_[id].present && tokens_[id].text == token) return static_cast<int32_t>(id);
  }
  return std::nullopt;
}

}  // namespace ll
