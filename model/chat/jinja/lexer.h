// Template text to tokens, with Jinja's white-space control as Hugging Face sets it up
// (trim_blocks and lstrip_blocks on, one newline at the very end of the template left out).
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll::jinja {

struct Token {
  enum class Kind {
    kText,
    kBlockBegin,
    kBlockEnd,
    kOutputBegin,
    kOutputEnd,
    kName,
    kInt,
    kFloat,
    kString,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  std::string text;  // string literals are unescaped
  int line = 0;      // 1-based
};

// Errors begin with "line N: ": an unclosed tag or string, a character no token begins with.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

}  // namespace ll::jinja
