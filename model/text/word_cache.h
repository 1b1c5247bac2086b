// Ids of words that came before. Natural text repeats its words: a look-up takes a tenth of the
// time that regular expressions and merges do.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace ll {

// Bounded in entries and bytes; emptied when full. Not thread-safe.
class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 48;

  // Appends the ids of `word` to `out`; false where they are not known.
  bool Find(absl::string_view word, std::vector<int32_t>& out) const {
    if (word.size() > kMaxWordBytes) return false;
    const auto it = words_.find(word);
    if (it == words_.end()) return false;
    const int32_t* ids = ids_.data() + it->second.begin;
    out.insert(out.end(), ids, ids + it->second.size);
    return true;
  }
  // Words longer than kMaxWordBytes are not kept.
  void Add(absl::string_view word, absl::Span<const int32_t> ids);

  void Clear();

 private:
  static constexpr size_t kMaxWords = 1 << 16;
  static constexpr size_t kBlockBytes = 64 << 10;
  struct Ids {
    uint32_t begin, size;
  };

  absl::flat_hash_map<absl::string_view, Ids> words_;  // keys lie in blocks_
  std::vector<int32_t> ids_;
  std::vector<std::unique_ptr<char[]>> blocks_;
  size_t used_ = 0;  // of the last block
};

// What a tokenizer remembers on one thread.
struct TokenizerCaches {
  WordCache words;   // by the text of a word
  WordCache pieces;  // by that of a piece, as BPE is given it

  // Of the calling thread, for the tokenizer `owner` (see NewOwner). A thread works with one
  // tokenizer at a time; a change empties the caches.
  static TokenizerCaches& OfThisThread(uint64_t owner);
  // A number no other tokenizer of the process has had.
  static uint64_t NewOwner();
};

}  // namespace ll
