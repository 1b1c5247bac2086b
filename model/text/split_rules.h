// Where a text may be cut before it is tokenized without changing the ids: what makes a long text
// parallel and a repeated word a look-up. Decided when a tokenizer is opened, from its steps and
// its vocabulary; a step whose effect is not known here means no.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "model/text/added_tokens.h"
#include "nlohmann/json.hpp"

namespace ll {

struct SplitRules {
  // In the normalised text between added tokens: before a space that follows a character that is
  // neither white space nor ▁; and likewise before ▁, the mark that stands for a space.
  bool at_spaces = false, at_marks = false;
  // See Tokenizer::SplitsAtLines.
  bool at_lines = false;
};

// `root`: the whole tokenizer.json, which was parsed without an error.
SplitRules FindSplitRules(const nlohmann::json& root,
                          const absl::flat_hash_map<std::string, int32_t>& vocab,
                          const std::vector<AddedToken>& added);

// What the tokens of a vocabulary reach over. BPE never makes a token that is not in it.
struct VocabularyReach {
  bool over_spaces = false;    // a token goes on with a space or ▁ after something else
  bool over_newlines = false;  // a token holds a newline and something else
  void Add(absl::string_view token);
};

// The length of the first word of `text`, cut at spaces and, with `marks`, at ▁.
size_t FirstWord(absl::string_view text, bool marks);

}  // namespace ll
