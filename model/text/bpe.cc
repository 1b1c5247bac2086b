#include "model/text/bpe.h"

#include <queue>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/text/pre_tokenizer.h"
#include "model/text/unicode.h"

namespace ll {
namespace {

using nlohmann::json;

absl::Status Refuse(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("model: ", what));
}

bool IsEmptyText(const json& section, const char* member) {
  return !section.contains(member) || section[member].is_null() || section[member] == "";
}

}  // namespace

absl::StatusOr<Bpe> Bpe::Parse(const json& section) {
  if (!section.is_object()) return Refuse("expected an object");
  if (const json type = section.value("type", json("BPE")); type != "BPE")
    return Refuse(absl::StrCat("expected the type BPE, found ", JsonExcerpt(type)));
  if (!IsEmptyText(section, "continuing_subword_prefix") ||
      !IsEmptyText(section, "end_of_word_suffix")) {
    return Refuse("subword prefixes and suffixes are not known");
  }
  if (section.contains("dropout") && !section["dropout"].is_null() && section["dropout"] != 0.0) {
    return Refuse("dropout makes tokens random");
  }
  Bpe bpe;
  LL_RETURN_IF_ERROR(bpe.ParseVocab(section));
  LL_RETURN_IF_ERROR(bpe.ParseMerges(section.value("merges", json())));
  bpe.fuse_unknown_ = section.value("fuse_unk", false);
  bpe.byte_fallback_ = section.value("byte_fallback", false);
  bpe.ignore_merges_ = section.value("ignore_merges", false);
  return bpe;
}

absl::Status Bpe::ParseVocab(const json& section) {
  const json& vocab = section.contains("vocab") ? section["vocab"] : section;
  if (!section.contains("vocab") || !vocab.is_object()) return Refuse("no vocab");
  vocab_.reserve(vocab.size());
  for (const auto& [token, id] : vocab.items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > (1u << 30))
      return Refuse(absl::StrCat("bad id of \"", absl::CHexEscape(token.substr(0, 80)), "\""));
    vocab_[token] = id.get<int32_t>();
  }
  if (!IsEmptyText(section, "unk_token") && section["unk_token"].is_string()) {
    auto it = vocab_.find(section["unk_token"].get<std::string>());
    if (it == vocab_.end()) return Refuse("unk_token is not in the vocabulary");
    unknown_ = it->second;
  }
  byte_ids_.assign(256, -1);
  for (int b = 0; b < 256; ++b) {
    auto it = vocab_.find(absl::StrFormat("<0x%02X>", b));
    if (it != vocab_.end()) byte_ids_[static_cast<size_t>(b)] = it->second;
  }
  return absl::OkStatus();
}

absl::Status Bpe::ParseMerges(const json& list) {
  if (!list.is_array()) return Refuse("no merges");
  merges_.reserve(list.size());
  for (size_t rank = 0; rank < list.size(); ++rank) {
    const json& entry = list[rank];
    std::string left, right;
    if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      left = entry[0].get<std::string>();
      right = entry[1].get<std::string>();
    } else if (entry.is_string()) {  // "left right", the older spelling
      const std::string text = entry.get<std::string>();
      const size_t space = text.find(' ');
      if (space == std::string::npos) return Refuse(absl::StrCat("merge ", rank, " has no space"));
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else {
      return Refuse(absl::StrCat("merge ", rank, " is not a pair"));
    }
    auto a = vocab_.find(left), b = vocab_.find(right), ab = vocab_.find(left + right);
    if (a == vocab_.end() || b == vocab_.end() || ab == vocab_.end()) {
      return Refuse(absl::StrCat("merge ", rank, " is of tokens that are not in the vocabulary"));
    }
    merges_[Pair(a->second, b->second)] = {static_cast<uint32_t>(rank), ab->second};
  }
  return absl::OkStatus();
}

void Bpe::Characters(absl::string_view piece, std::vector<Symbol>& symbols) const {
  const auto push = [&](int32_t id) {
    const auto n = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, n - 1, n + 1});
  };
  bool after_unknown = false;
  for (size_t at = 0; at < piece.size();) {
    const absl::string_view c = piece.substr(at, static_cast<size_t>(Utf8Length(piece[at])));
    at += c.size();
    if (auto it = vocab_.find(c); it != vocab_.end()) {
      push(it->second);
      after_unknown = false;
      continue;
    }
    bool bytes = byte_fallback_;
    for (char b : c) bytes = bytes && byte_ids_[static_cast<unsigned char>(b)] >= 0;
    if (bytes) {
      for (char b : c) push(byte_ids_[static_cast<unsigned char>(b)]);
      after_unknown = false;
    } else if (unknown_) {
      if (!(fuse_unknown_ && after_unknown)) push(*unknown_);
      after_unknown = true;
    }
  }
  if (!symbols.empty()) symbols.back().next = -1;
}

void Bpe::Encode(absl::string_view piece, std::vector<int32_t>& out) const {
  if (ignore_merges_) {
    if (auto it = vocab_.find(piece); it != vocab_.end()) {
      out.push_back(it->second);
      return;
    }
  }
  struct Candidate {
    uint32_t rank;
    int32_t left;    // position of the left symbol
    int32_t merged;  // what the pair becomes
  };
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  thread_local std::vector<Symbol> symbols;
  thread_local std::vector<Candidate> heap;
  symbols.clear();
  heap.clear();
  Characters(piece, symbols);
  const auto offer = [&](int32_t left) {
    if (left < 0 || symbols[static_cast<size_t>(left)].next < 0) return;
    const Symbol& s = symbols[static_cast<size_t>(left)];
    auto it = merges_.find(Pair(s.id, symbols[static_cast<size_t>(s.next)].id));
    if (it == merges_.end()) return;
    heap.push_back({it->second.rank, left, it->second.merged});
    std::push_heap(heap.begin(), heap.end(), later);
  };
  for (size_t i = 0; i < symbols.size(); ++i) offer(static_cast<int32_t>(i));
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate top = heap.back();
    heap.pop_back();
    Symbol& left = symbols[static_cast<size_t>(top.left)];
    if (left.id < 0 || left.next < 0) continue;  // merged meanwhile
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    auto it = merges_.find(Pair(left.id, right.id));
    if (it == merges_.end() || it->second.merged != top.merged) continue;  // a neighbour changed
    left.id = top.merged;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = top.left;
    offer(left.previous);
    offer(top.left);
  }
  for (const Symbol& s : symbols) {
    if (s.id >= 0) out.push_back(s.id);
  }
}

}  // namespace ll
