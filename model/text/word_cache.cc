#include "model/text/word_cache.h"

#include <atomic>
#include <cstring>

namespace ll {

void WordCache::Add(absl::string_view word, absl::Span<const int32_t> ids) {
  if (word.size() > kMaxWordBytes) return;
  if (words_.size() >= kMaxWords) Clear();
  if (blocks_.empty() || used_ + word.size() > kBlockBytes) {
    blocks_.push_back(std::make_unique<char[]>(kBlockBytes));
    used_ = 0;
  }
  char* key = blocks_.back().get() + used_;
  std::memcpy(key, word.data(), word.size());
  used_ += word.size();
  words_[absl::string_view(key, word.size())] = {static_cast<uint32_t>(ids_.size()),
                                                 static_cast<uint32_t>(ids.size())};
  ids_.insert(ids_.end(), ids.begin(), ids.end());
}

void WordCache::Clear() {
  words_.clear();
  ids_.clear();
  blocks_.clear();
}

TokenizerCaches& TokenizerCaches::OfThisThread(uint64_t owner) {
  thread_local TokenizerCaches caches;
  thread_local uint64_t owned_by = 0;
  if (owned_by != owner) {
    caches.words.Clear();
    caches.pieces.Clear();
    owned_by = owner;
  }
  return caches;
}

uint64_t TokenizerCaches::NewOwner() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1);
}

}  // namespace ll
