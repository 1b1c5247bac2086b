#include "model/chat/marked_tokenizer.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/status_macros.h"

namespace ll {

absl::StatusOr<MarkedTokenizer> MarkedTokenizer::Create(std::shared_ptr<const Tokenizer> tokenizer,
                                                        const SpecialTokens& tokens) {
  MarkedTokenizer out;
  out.tokenizer_ = std::move(tokenizer);
  const Tokenizer& t = *out.tokenizer_;
  const std::string eos = tokens.Text("eos_token");
  if (!t.eos_id || eos.empty()) {
    return MakeFieldError({"tokenizer", "an EOS token, which ends every answer", "none",
                           "name it in tokenizer_config.json as eos_token"});
  }
  LL_ASSIGN_OR_RETURN(const std::vector<int32_t> eos_ids, t.Encode(eos));
  out.reads_specials_ = eos_ids == std::vector<int32_t>{*t.eos_id};
  for (const auto& [text, id] : {std::pair{eos, t.eos_id}, {tokens.Text("bos_token"), t.bos_id}}) {
    if (text.empty() || !id) continue;
    if (out.reads_specials_) {
      // A token that takes the white space in front of it is no place to cut.
      LL_ASSIGN_OR_RETURN(const std::vector<int32_t> whole,
                          t.Encode(absl::StrCat("a ", text, "b")));
      LL_ASSIGN_OR_RETURN(std::vector<int32_t> parts, t.Encode("a "));
      LL_ASSIGN_OR_RETURN(const std::vector<int32_t> tail, t.Encode(absl::StrCat(text, "b")));
      parts.insert(parts.end(), tail.begin(), tail.end());
      if (whole != parts) continue;
    }
    out.cuts_.push_back({text, *id});
  }
  return out;
}

std::pair<size_t, const MarkedTokenizer::Cut*> MarkedTokenizer::NextCut(absl::string_view text,
                                                                        size_t from) const {
  std::pair<size_t, const Cut*> next{absl::string_view::npos, nullptr};
  for (const Cut& cut : cuts_) {
    const size_t at = text.find(cut.text, from);
    if (at < next.first) next = {at, &cut};
  }
  return next;
}

absl::StatusOr<std::vector<int32_t>> MarkedTokenizer::EncodeChunk(absl::string_view chunk) const {
  if (reads_specials_) return tokenizer_->Encode(chunk);
  std::vector<int32_t> ids;
  const auto [at, cut] = NextCut(chunk, 0);
  if (at == 0) {
    ids.push_back(cut->id);
    chunk.remove_prefix(cut->text.size());
  }
  if (chunk.empty()) return ids;
  LL_ASSIGN_OR_RETURN(const std::vector<int32_t> rest, tokenizer_->Encode(chunk));
  ids.insert(ids.end(), rest.begin(), rest.end());
  return ids;
}

absl::StatusOr<std::vector<int32_t>> MarkedTokenizer::Encode(absl::string_view text) const {
  LL_ASSIGN_OR_RETURN(Marked marked, EncodeWithBorders(text, {}));
  return std::move(marked.ids);
}

absl::StatusOr<MarkedTokenizer::Marked> MarkedTokenizer::EncodeWithBorders(
    absl::string_view text, const std::vector<size_t>& at) const {
  LL_CHECK(std::is_sorted(at.begin(), at.end()) && (at.empty() || at.back() <= text.size()));
  Marked out;
  size_t border = 0;
  for (size_t begin = 0; begin < text.size() || border < at.size();) {
    const size_t end = std::min(NextCut(text, begin + 1).first, text.size());
    LL_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                        EncodeChunk(text.substr(begin, end - begin)));
    const int64_t before = static_cast<int64_t>(out.ids.size());
    // A border at the chunk's end is the next chunk's start, but for the last.
    for (; border < at.size() && (at[border] < end || end == text.size()); ++border) {
      std::vector<int32_t> prefix;
      if (at[border] == end) {
        prefix = ids;
      } else if (at[border] > begin) {
        LL_ASSIGN_OR_RETURN(prefix, EncodeChunk(text.substr(begin, at[border] - begin)));
      }
      const auto differs =
          std::mismatch(prefix.begin(), prefix.end(), ids.begin(), ids.end()).first;
      out.borders.push_back(
          {before + static_cast<int64_t>(prefix.size()), before + (differs - prefix.begin())});
    }
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    begin = end;
  }
  return out;
}

}  // namespace ll
