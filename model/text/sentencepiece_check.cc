#include "model/text/sentencepiece_check.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/field_error.h"
#include "base/status_macros.h"

namespace ll {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr uint64_t kTrainerSpec = 2, kNormalizerSpec = 3, kDenormalizerSpec = 5;
constexpr uint64_t kModelType = 3, kBpe = 2, kWhitespaceAsSuffix = 24, kByteFallback = 35;
constexpr uint64_t kPrecompiledCharsmap = 2, kAddDummyPrefix = 3, kRemoveExtraWhitespaces = 4,
                   kEscapeWhitespaces = 5;
constexpr size_t kMaxRulesBytes = 16 << 20;  // NFKC with case folding takes 0.3 MB

absl::Status NotAModel() {
  return absl::InvalidArgumentError("expected a SentencePiece model, found something else");
}

bool ReadVarint(absl::string_view& from, uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64 && !from.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(from.front());
    from.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// The next field of a message: its number, and its value where it is a number, or its bytes where
// it has such. False: not the wire format.
bool ReadField(absl::string_view& from, uint64_t& number, uint64_t& value,
               absl::string_view& bytes) {
  uint64_t tag = 0, length = 0;
  if (!ReadVarint(from, tag)) return false;
  number = tag >> 3;
  value = 0;
  bytes = {};
  switch (tag & 7) {
    case 0:
      return ReadVarint(from, value);
    case 1:
      length = 8;
      break;
    case 2:
      if (!ReadVarint(from, length)) return false;
      break;
    case 5:
      length = 4;
      break;
    default:
      return false;  // groups
  }
  if (length > from.size()) return false;
  if ((tag & 7) == 2) bytes = from.substr(0, length);
  from.remove_prefix(length);
  return true;
}

// A unit of a Darts-clone trie.
struct Unit {
  uint32_t bits;
  uint32_t offset() const { return (bits >> 10) << ((bits & (1u << 9)) >> 6); }
  uint32_t label() const { return bits & ((1u << 31) | 0xFF); }
  bool has_leaf() const { return (bits >> 8 & 1) == 1; }
  uint32_t value() const { return bits & ~(1u << 31); }
};

// Follows every path that a text can take: from a node at `base` byte c leads to the unit base ^ c
// if that one's label is c; a leaf's value is an offset into `replacements`.
bool TrieStaysInside(const std::vector<Unit>& units, absl::string_view replacements) {
  if (units.empty() || replacements.empty() || replacements.back() != '\0') return false;
  std::vector<bool> seen(units.size());
  std::vector<uint32_t> bases = {units[0].offset()};
  while (!bases.empty()) {
    const uint32_t base = bases.back();
    bases.pop_back();
    for (uint32_t c = 0; c < 256; ++c) {
      const uint32_t at = base ^ c;
      if (at >= units.size()) return false;
      if (units[at].label() != c || seen[at]) continue;
      seen[at] = true;
      const uint32_t next = at ^ units[at].offset();
      if (next >= units.size()) return false;
      if (units[at].has_leaf() && units[next].value() >= replacements.size()) return false;
      bases.push_back(next);
    }
  }
  return true;
}

// The rules' layout: the trie's size in bytes, the trie, and its replacements, each ended by a
// zero.
absl::Status CheckRules(absl::string_view rules) {
  if (rules.empty()) return absl::OkStatus();  // no rules
  uint32_t trie_bytes = 0;
  bool good = rules.size() > sizeof(trie_bytes) && rules.size() <= kMaxRulesBytes;
  if (good) {
    std::memcpy(&trie_bytes, rules.data(), sizeof(trie_bytes));
    rules.remove_prefix(sizeof(trie_bytes));
    // The library looks at the first unit unasked.
    good = trie_bytes > 0 && trie_bytes <= rules.size() && trie_bytes % sizeof(Unit) == 0;
  }
  if (good) {
    std::vector<Unit> units(trie_bytes / sizeof(Unit));
    std::memcpy(units.data(), rules.data(), trie_bytes);
    good = TrieStaysInside(units, rules.substr(trie_bytes));
  }
  return good ? absl::OkStatus()
              : MakeFieldError({"precompiled_charsmap", "rules whose offsets stay inside them",
                                "others", "the SentencePiece model is damaged"});
}

absl::Status CheckNormalizer(absl::string_view spec) {
  while (!spec.empty()) {
    uint64_t number = 0, value = 0;
    absl::string_view bytes;
    if (!ReadField(spec, number, value, bytes)) return NotAModel();
    if (number == kPrecompiledCharsmap) LL_RETURN_IF_ERROR(CheckRules(bytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSentencePieceModel(absl::string_view serialized) {
  if (serialized.empty()) return NotAModel();
  while (!serialized.empty()) {
    uint64_t number = 0, value = 0;
    absl::string_view bytes;
    if (!ReadField(serialized, number, value, bytes)) return NotAModel();
    if (number == kNormalizerSpec || number == kDenormalizerSpec)
      LL_RETURN_IF_ERROR(CheckNormalizer(bytes));
  }
  return absl::OkStatus();
}

bool IsPlainBpeModel(absl::string_view serialized) {
  bool bpe = false, fallback = false, suffix = false, rules = false;
  bool prefix = true, remove_extra = true, escape = true;  // the format's defaults
  uint64_t part = 0, number = 0, value = 0;
  absl::string_view spec, bytes;
  while (!serialized.empty() && ReadField(serialized, part, value, spec)) {
    if (part != kTrainerSpec && part != kNormalizerSpec) continue;
    const bool trainer = part == kTrainerSpec;
    while (!spec.empty() && ReadField(spec, number, value, bytes)) {
      if (trainer && number == kModelType) bpe = value == kBpe;
      if (trainer && number == kByteFallback) fallback = value != 0;
      if (trainer && number == kWhitespaceAsSuffix) suffix = value != 0;
      if (!trainer && number == kPrecompiledCharsmap) rules = !bytes.empty();
      if (!trainer && number == kAddDummyPrefix) prefix = value != 0;
      if (!trainer && number == kRemoveExtraWhitespaces) remove_extra = value != 0;
      if (!trainer && number == kEscapeWhitespaces) escape = value != 0;
    }
  }
  return bpe && fallback && !suffix && !rules && prefix && !remove_extra && escape;
}

}  // namespace ll
