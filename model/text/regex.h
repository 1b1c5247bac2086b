// A regular expression of a tokenizer.json, run by PCRE2 over valid UTF-8. Immutable, thread-safe.
// Character classes are those of PCRE2's Unicode version (14 with Debian 12): a character assigned
// later counts as unassigned.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

class Regex {
 public:
  // The pattern is in Oniguruma's dialect, as the `tokenizers` library reads it; \s means
  // White_Space. Error: a pattern PCRE2 cannot compile.
  static absl::StatusOr<std::shared_ptr<const Regex>> Compile(absl::string_view pattern);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // The first match that is not empty and starts at or after `from`. False: there is none. An error
  // where the match needed more resources than the library allows.
  absl::StatusOr<bool> Find(absl::string_view text, size_t from, size_t* begin, size_t* end) const;

 private:
  Regex() = default;
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace ll
