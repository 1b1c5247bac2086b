#include "model/text/added_tokens.h"

#include <algorithm>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/text/pre_tokenizer.h"
#include "model/text/unicode.h"

namespace ll {
namespace {

// Offset of the last character that starts before `end`.
size_t PreviousCharacter(absl::string_view text, size_t end) {
  size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool WordTouches(absl::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    size_t at = PreviousCharacter(text, begin);
    if (IsWordCharacter(NextCodePoint(text, at))) return true;
  }
  size_t at = end;
  return end < text.size() && IsWordCharacter(NextCodePoint(text, at));
}

}  // namespace

absl::StatusOr<std::vector<AddedToken>> ParseAddedTokens(const nlohmann::json& section) {
  std::vector<AddedToken> out;
  if (section.is_null()) return out;
  if (!section.is_array()) return absl::InvalidArgumentError("added_tokens: expected a list");
  for (const nlohmann::json& entry : section) {
    if (!entry.is_object() || !entry.value("id", nlohmann::json()).is_number_unsigned()) {
      return absl::InvalidArgumentError("added_tokens: expected objects with an id");
    }
    AddedToken t;
    if (entry["id"].get<uint64_t>() > std::numeric_limits<int32_t>::max())
      return absl::InvalidArgumentError("added_tokens: an id is too large");
    t.id = entry["id"].get<int32_t>();
    LL_ASSIGN_OR_RETURN(t.content, JsonText(entry, "content"));
    t.special = entry.value("special", false);
    t.normalized = entry.value("normalized", !t.special);
    t.single_word = entry.value("single_word", false);
    t.lstrip = entry.value("lstrip", false);
    t.rstrip = entry.value("rstrip", false);
    if (!t.content.empty()) out.push_back(std::move(t));
  }
  return out;
}

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    by_first_byte_[static_cast<unsigned char>(tokens_[i].content[0])].push_back(i);
  }
  for (std::vector<size_t>& list : by_first_byte_) {
    std::stable_sort(list.begin(), list.end(), [&](size_t a, size_t b) {
      return tokens_[a].content.size() > tokens_[b].content.size();
    });
  }
}

const AddedToken* AddedTokenMatcher::Match(absl::string_view rest) const {
  for (size_t i : by_first_byte_[static_cast<unsigned char>(rest[0])]) {
    if (absl::StartsWith(rest, tokens_[i].content)) return &tokens_[i];
  }
  return nullptr;
}

std::vector<AddedTokenMatcher::Section> AddedTokenMatcher::Split(absl::string_view text) const {
  std::vector<Section> out;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const AddedToken* token = tokens_.empty() ? nullptr : Match(text.substr(at));
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + token->content.size();
    at = end;
    if (token->single_word && WordTouches(text, begin, end)) continue;
    while (token->lstrip && begin > done) {
      const size_t before = PreviousCharacter(text, begin);
      size_t next = before;
      if (!IsWhiteSpace(NextCodePoint(text, next))) break;
      begin = before;
    }
    while (token->rstrip && end < text.size()) {
      size_t next = end;
      if (!IsWhiteSpace(NextCodePoint(text, next))) break;
      end = next;
    }
    begin = std::max(begin, done);
    if (begin > done) out.push_back({text.substr(done, begin - done)});
    out.push_back({text.substr(begin, end - begin), token->id});
    done = end;
    at = std::max(at, end);
  }
  if (done < text.size()) out.push_back({text.substr(done)});
  return out;
}

}  // namespace ll
