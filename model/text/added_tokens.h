// Tokens that are found in the text as they stand, before any BPE: special tokens and user-defined
// words.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace ll {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool normalized = true;    // looked for in the normalised text rather than in the raw one
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false, rstrip = false;  // takes the white space beside it
};

// Parses the `added_tokens` section.
absl::StatusOr<std::vector<AddedToken>> ParseAddedTokens(const nlohmann::json& section);

// Finds the leftmost, then longest of a set of added tokens. Immutable, thread-safe.
class AddedTokenMatcher {
 public:
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  struct Section {
    absl::string_view text;
    int32_t id = -1;  // of the added token, or -1 for text to tokenize
  };
  // `text` cut into added tokens and what lies between; empty sections are left out.
  std::vector<Section> Split(absl::string_view text) const;

 private:
  const AddedToken* Match(absl::string_view rest) const;
  std::vector<AddedToken> tokens_;
  std::array<std::vector<size_t>, 256> by_first_byte_;  // longest first
};

}  // namespace ll
