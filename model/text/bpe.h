// Byte-pair encoding of one piece (Sennrich et al. 2016): start from characters, merge the pair of
// lowest rank until none is left. A heap of candidate pairs over a linked list of symbols makes a
// piece of n characters O(n log n). Immutable after parsing, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace ll {

class Bpe {
 public:
  // Parses the `model` section of a tokenizer.json.
  static absl::StatusOr<Bpe> Parse(const nlohmann::json& section);

  // Appends the ids of `piece` (valid UTF-8). A character that is not in the vocabulary becomes its
  // <0xXX> bytes (byte_fallback), else the unknown token (once for a run of them with fuse_unk),
  // else nothing.
  void Encode(absl::string_view piece, std::vector<int32_t>& out) const;

  const absl::flat_hash_map<std::string, int32_t>& vocab() const { return vocab_; }

 private:
  struct Merge {
    uint32_t rank;
    int32_t merged;
  };
  struct Symbol {
    int32_t id;  // -1: merged into its left neighbour
    int32_t previous, next;
  };
  static uint64_t Pair(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  absl::Status ParseVocab(const nlohmann::json& section);
  absl::Status ParseMerges(const nlohmann::json& list);
  void Characters(absl::string_view piece, std::vector<Symbol>& symbols) const;

  absl::flat_hash_map<std::string, int32_t> vocab_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
  std::optional<int32_t> unknown_;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
  std::vector<int32_t> byte_ids_;  // of <0x00> … <0xFF>; -1 where absent
};

}  // namespace ll
